// Memory of a session on a device, besides weights: two reservations, made at load and carved up once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "native/batch.h"
#include "native/cuda/device_library.h"
#include "native/memory.h"
#include "native/plan.h"

namespace engine::cuda {

// Steps of more tokens go through all chunks of a context in one block per tile; fewer would leave the device idle.
inline constexpr int32_t kSplitTokens = 16;
// Chunks of a context that are split among blocks; longer contexts are not, so that partial results stay small.
inline constexpr int32_t kSplitChunks = 64;

// Memory from one pair of a device's functions, freed by the destructor.
template <auto kAllocate, auto kFree>
class Allocation {
 public:
  Allocation() = default;
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;
  ~Allocation() { Release(); }

  // Returns the device's error.
  int Allocate(const DeviceApi& api, uint64_t bytes) {
    Release();
    if (bytes == 0) return 0;
    void* memory = nullptr;
    const int error = (api.*kAllocate)(&memory, bytes);
    if (error != 0) return error;
    api_ = &api;
    data_ = static_cast<uint8_t*>(memory);
    size_ = bytes;
    return 0;
  }
  void Release() {
    if (data_ != nullptr) (api_->*kFree)(data_);
    data_ = nullptr;
    size_ = 0;
  }

  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  const DeviceApi* api_ = nullptr;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

// On the device.
using DeviceAllocation = Allocation<&DeviceApi::allocate, &DeviceApi::free>;
// Of this machine, copied to and from the device at full speed.
using PinnedMemory = Allocation<&DeviceApi::allocate_pinned, &DeviceApi::free_pinned>;

// A base for launches that are told and never run: they differ by which pointers are null.
inline uint8_t* Nowhere() { return reinterpret_cast<uint8_t*>(uintptr_t{64}); }

// Where everything lies that kernels work on. Without memory behind it (null bases) it is still a plan of sizes.
struct Areas {
  float* arenas[2];  // by Rows: [row capacity, arena width]
  // Prepared rows of whatever a linear reads; num_rows and columns are set by each launch.
  uint16_t* halves;
  float* sums;
  float* scales;
  uint8_t* halved_weights;  // of the largest matrix, for steps of many rows
  float* partials;          // of attention
  Highest* highest;         // [rows of a step, blocks] of the linear that makes the logits, for few rows
  uint8_t* sample_scratch;
  std::vector<float*> cos, sin;  // of each rope table [context_size, pairs]
  uint8_t* results;              // of one step: ResultBytes(max_rows)
  uint8_t* kept_results;         // of the steps of a call: ResultBytes(kMaxSteps · max_rows)
  std::vector<KvCache> kv;       // of each layer

  float* buffer(const Plan& plan, int32_t id) const {
    const BufferInfo& info = plan.buffers[id];
    return arenas[static_cast<int32_t>(info.rows)] +
           static_cast<size_t>(info.offset) * static_cast<size_t>(plan.row_capacity(info.rows));
  }
};

constexpr size_t ResultBytes(int32_t num_rows, bool with_top) {
  return static_cast<size_t>(num_rows) * (with_top ? 8 + 8 * static_cast<size_t>(kMaxTopLogprobs) : 8);
}

// Results as they lie in such memory, made for `most` rows: alternatives, seldom asked for, are last.
inline StepResults ResultsAt(uint8_t* memory, size_t most) {
  auto* tokens = reinterpret_cast<int32_t*>(memory);
  return {.tokens = tokens,
          .logprobs = reinterpret_cast<float*>(tokens + most),
          .top_ids = tokens + 2 * most,
          .top_logprobs = reinterpret_cast<float*>(tokens + (2 + kMaxTopLogprobs) * most)};
}

// Fills in `areas`; returns how much the two carvers gave.
void CarveAreas(const Plan& plan, const Device& device, const std::vector<TiledMatrix>& matrices, int32_t parts,
                Carver* activations, Carver* kv, Areas* areas);

// Bytes that a session takes on its device.
struct MemoryPlan {
  uint64_t weights, kv, activations;

  uint64_t total() const { return weights + kv + activations; }
};

// OUT_OF_MEMORY with the whole plan.
Failure DeviceOutOfMemory(const Device& device, const MemoryPlan& plan);

}  // namespace engine::cuda
