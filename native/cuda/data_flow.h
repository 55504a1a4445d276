// Which op reads what which op has written, in the ops that a step does. Buffers share memory, and some ops change one
// in place, so a value is not a buffer: it is what one op writes, and has the index of that op in the plan.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "native/plan.h"

namespace engine::cuda {

struct Value {
  std::vector<int32_t> readers;  // ops, ascending; in-place ones included
  // The op that writes over it, or over a part of it.
  int32_t ends = std::numeric_limits<int32_t>::max();
  // Somebody reads it after the step, or reads its memory as another buffer.
  bool kept = false;

  bool IsReadOnlyBy(int32_t op) const { return !kept && readers.size() == 1 && readers[0] == op; }
};

class DataFlow {
 public:
  // `ops` are those of the plan that are done, ascending.
  DataFlow(const Plan& plan, const std::vector<int32_t>& ops);

  // What `op` writes.
  const Value& Of(int32_t op) const { return values_[static_cast<size_t>(op)]; }
  // The value that `op` reads in `buffer`; −1 if no op has written it as this buffer.
  int32_t ReadBy(int32_t op, int32_t buffer) const;

 private:
  std::vector<Value> values_;                                    // by op
  std::vector<std::vector<std::pair<int32_t, int32_t>>> reads_;  // by op: buffers and their values
};

}  // namespace engine::cuda
