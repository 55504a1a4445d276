// Everything a step works on besides weights: activations, KV cache, angles, scratch. One reservation, made at load.
#pragma once

#include <atomic>
#include <vector>

#include "native/failure.h"
#include "native/memory.h"
#include "native/plan.h"
#include "native/schedule.h"

namespace engine {

class Workspace {
 public:
  // OUT_OF_MEMORY.
  Failure Allocate(const Plan& plan, const Schedule& schedule, int32_t num_threads);

  // Makes the angles of all positions below `end` that are not there yet: those of a long context take a while.
  void ExtendRope(const Plan& plan, int32_t end);

  // [rows of the step, width]
  float* buffer(const Plan& plan, int32_t id) const {
    const BufferInfo& buffer = plan.buffers[id];
    const auto capacity = static_cast<size_t>(plan.row_capacity(buffer.rows));
    return arenas_[static_cast<int32_t>(buffer.rows)] + static_cast<size_t>(buffer.offset) * capacity;
  }

  // An area for codes of up to its max_elements values; the user sets the number of columns.
  const kernels::QuantizedRows& codes(int32_t area) const { return codes_[area]; }
  const kernels::KvCache& kv(int32_t layer) const { return kv_[layer]; }
  const kernels::AttentionExchange& exchange() const { return exchange_; }
  kernels::RopeTable rope(int32_t table) const { return {rope_[table].cos, rope_[table].sin, rope_[table].num_pairs}; }
  uint8_t* scratch(int32_t thread) const { return scratch_ + static_cast<size_t>(thread) * scratch_bytes_; }

  uint64_t bytes() const { return reservation_.size(); }

 private:
  struct RopeRows {
    float* cos;  // [context_size, num_pairs]
    float* sin;
    int32_t num_pairs;
  };

  void Carve(const Plan& plan, const Schedule& schedule, int32_t num_threads, Carver* carver);

  Reservation reservation_;
  float* arenas_[2] = {};  // by Rows: [row capacity, arena width]
  std::vector<kernels::QuantizedRows> codes_;
  std::vector<kernels::KvCache> kv_;
  kernels::AttentionExchange exchange_ = {};
  std::atomic<int32_t> shared_done_[kernels::kMaxSharedTiles] = {};
  std::vector<RopeRows> rope_;
  int32_t rope_end_ = 0;
  uint8_t* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;  // per thread
};

}  // namespace engine
