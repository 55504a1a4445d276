// The order of work of a step, found once at load: which linears must first make 8-bit codes of their input, which
// instructions can run chunk by chunk in one go, and which must wait for all that came before.
#pragma once

#include <cstdint>
#include <vector>

#include "native/plan.h"

namespace engine {

// Activations as 8-bit integers share a few areas per chunk size (values per scale). Codes are made again only when
// their buffer has changed or another one's have taken their place: q, k and v of a layer share theirs.
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
};

// Time on one core, roughly, in nanoseconds: how finely work is worth sharing out.
struct Cost {
  double fixed = 0;
  double per_row = 0;
  double per_pair = 0;  // of a query and a position that it sees

  void Add(const Cost& other);
};

// Instructions that are shared out alike, so that a thread can go through all of them for its rows, or columns, without
// waiting for others.
struct Task {
  enum class Axis {
    kRows,     // each row by itself
    kColumns,  // linears and pointwise ops: columns of the output
    kTiles,    // attention
  };
  Axis axis;
  Rows rows;           // what the rows are
  int32_t width;       // kColumns: how many there are; kTiles: KV heads
  int32_t chunk_unit;  // kColumns: shares begin at multiples of it; 0 leaves it to the kernel
  Cost cost;
  std::vector<Instruction> instructions;
};

// Tasks that can run at the same time.
struct Stage {
  std::vector<Task> tasks;
};

struct Schedule {
  std::vector<Stage> stages;
  std::vector<CodesArea> areas;
  // Stages before the plan's head, which makes logits of hidden states; all of them if it has none.
  size_t num_hidden_stages;
};

// Bounds what a stage's chunks can add up to.
inline constexpr size_t kMaxTasksPerStage = 32;

Schedule MakeSchedule(const Plan& plan);

}  // namespace engine
