// The choice of the highest value: the lowest id among equals, and none of −∞ and NaN.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

ENGINE_DEVICE Highest HighestOf(float value, int32_t id) {
  if (value > -Infinity()) return {value, id};
  return {0.0f, -1};
}

ENGINE_DEVICE Highest Better(Highest a, Highest b) {
  if (a.id < 0) return b;
  if (b.id < 0) return a;
  if (a.value != b.value) return a.value < b.value ? b : a;
  return a.id < b.id ? a : b;
}

// The better of those of the lanes whose numbers differ in bits below `lanes`, a power of two.
ENGINE_DEVICE Highest BestOfLanes(Highest best, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    best = Better(best, {ShuffleXor(best.value, mask), ShuffleXor(best.id, mask)});
  }
  return best;
}

}  // namespace
}  // namespace engine::cuda
