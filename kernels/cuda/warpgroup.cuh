// Where the products of a warpgroup find their right operand in shared memory.
#pragma once

#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// Of matrices of 8 columns by 8 values of k, 128 bytes each: a column's 8 halves lie side by side, without swizzling.
// From a matrix to the next it is `along_k` bytes in the direction of k and `along_columns` in the other; addresses and
// distances are multiples of 16 below 2^18. (PTX ISA: matrix descriptor; K-major, leading and stride dimension byte
// offsets.)
ENGINE_DEVICE uint64_t CoresAt(const void* shared, uint32_t along_k, uint32_t along_columns) {
  return uint64_t{SharedAddress(shared) >> 4} | uint64_t{along_k >> 4} << 16 | uint64_t{along_columns >> 4} << 32;
}
// Those so many bytes further.
ENGINE_DEVICE uint64_t CoresBehind(uint64_t descriptor, uint32_t bytes) { return descriptor + (bytes >> 4); }

}  // namespace
}  // namespace engine::cuda
