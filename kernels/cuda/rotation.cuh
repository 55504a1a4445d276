// Rotary embeddings of one pair of values (Su et al. 2021).
#pragma once

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

}  // namespace
}  // namespace engine::cuda
