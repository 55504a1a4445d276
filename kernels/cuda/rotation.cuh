// Rotary embeddings of one pair of values (Su et al. 2021).
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// The pair (a, b) turned by an angle: its first value, and its second.
ENGINE_DEVICE float RotatedFirst(float a, float b, float cos, float sin) {
  return Add(Multiply(a, cos), -Multiply(b, sin));
}
ENGINE_DEVICE float RotatedSecond(float a, float b, float cos, float sin) {
  return Add(Multiply(a, sin), Multiply(b, cos));
}

// Turns a pair of a head of a row in place.
ENGINE_DEVICE void RotatePair(float* head, const HeadRotation& rotation, int64_t row, int pair) {
  float* const first = head + (rotation.interleaved ? 2 * pair : pair);
  float* const second = head + (rotation.interleaved ? 2 * pair + 1 : rotation.num_pairs + pair);
  const int64_t angle = static_cast<int64_t>(rotation.positions[row]) * rotation.num_pairs + pair;
  const float a = *first;
  const float b = *second;
  const float cos = rotation.cos[angle];
  const float sin = rotation.sin[angle];
  *first = RotatedFirst(a, b, cos, sin);
  *second = RotatedSecond(a, b, cos, sin);
}

}  // namespace
}  // namespace engine::cuda
