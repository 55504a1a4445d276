// The order of work of a step, found once at load: which linears must first make 8-bit codes of their input, and before
// which instructions all threads must have finished what came before.
#pragma once

#include <cstdint>
#include <vector>

#include "native/plan.h"

namespace engine {

// Activations as 8-bit integers share one area per chunk size (32 or 256 values per scale); it is made again only when
// another buffer's codes are needed, or the buffer has changed: q, k and v of a layer, gate and up share theirs.
struct CodesArea {
  int32_t chunk;         // values per scale
  int64_t max_elements;  // of any input at full row capacity
};

struct Instruction {
  Op op;
  // −1: run the op itself. Otherwise only make the codes of the linear's input, in this area.
  int32_t quantize_area = -1;
  // The area whose codes a linear reads, or −1.
  int32_t codes_area = -1;
  // Wait for all threads first: some earlier instruction touches the same memory.
  bool barrier = false;
};

struct Schedule {
  std::vector<Instruction> instructions;
  std::vector<CodesArea> areas;
  // Multiply-adds of a step: per row of linears, by Rows, and per pair of a query and a visible position.
  double work_per_row[2] = {};
  double work_per_pair = 0;
};

Schedule MakeSchedule(const Plan& plan);

}  // namespace engine
