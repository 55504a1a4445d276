// What all linear layers do with a finished sum.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// `sum` is that of a row of the weights and the halves of a row of activations, whose scale this is.
ENGINE_DEVICE float ProductOf(float sum, float scale, const float* bias, int row) {
  const float value = Multiply(sum, scale);
  return bias != nullptr ? Add(value, bias[row]) : value;
}

ENGINE_DEVICE void StoreProduct(float* out, float value, bool add) { *out = add ? Add(*out, value) : value; }

ENGINE_DEVICE void StoreLinear(const LinearArgs& args, int row, int token, float sum) {
  float* const out = args.out + static_cast<size_t>(token) * static_cast<size_t>(args.weight.rows) + row;
  StoreProduct(out, ProductOf(sum, args.x.scales[token], args.bias, row), args.add);
}

}  // namespace
}  // namespace engine::cuda
