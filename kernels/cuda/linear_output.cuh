// What all linear layers do with a finished sum.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// `sum` is that of a row of the weights and the halves of a row of activations.
ENGINE_DEVICE void StoreLinear(const LinearArgs& args, int row, int token, float sum) {
  float value = Multiply(sum, args.x.scales[token]);
  if (args.bias != nullptr) value = Add(value, args.bias[row]);
  float* const out = args.out + static_cast<size_t>(token) * static_cast<size_t>(args.weight.rows) + row;
  *out = args.add ? Add(*out, value) : value;
}

}  // namespace
}  // namespace engine::cuda
