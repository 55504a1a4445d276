// Reductions over a block of at most 1024 threads, by fixed trees: lanes of a warp, then warps. All threads call them,
// and all get the result.
#pragma once

#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// combine is commutative and associative up to rounding.
template <class T, class Combine>
ENGINE_DEVICE T BlockReduce(T value, Combine combine) {
  ENGINE_SHARED(warps, T[32]);
  for (int mask = 16; mask > 0; mask /= 2) value = combine(value, ShuffleXor(value, mask));
  if (ThreadIndex() % 32 == 0) warps[ThreadIndex() / 32] = value;
  SyncThreads();
  value = warps[0];
  for (int warp = 1; warp < NumThreads() / 32; warp++) value = combine(value, warps[warp]);
  SyncThreads();  // before the next one writes
  return value;
}

ENGINE_DEVICE float BlockSum(float value) {
  return BlockReduce(value, [](float a, float b) { return Add(a, b); });
}
ENGINE_DEVICE uint32_t BlockMax(uint32_t value) {
  return BlockReduce(value, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
}

}  // namespace
}  // namespace engine::cuda
