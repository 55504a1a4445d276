// Where keys and values lie in their blocks (KvCache in kernels.h).
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

// How many values 16 bytes hold, and what they are as floats.
template <KvDType kDType>
struct KvVector {
  static constexpr int kValues = 16 / KvValueBytes(kDType);

  // Of the 16 bytes.
  ENGINE_DEVICE static void Unpack(float (&values)[kValues], const Words4& words) {
    const uint32_t all[4] = {words.x, words.y, words.z, words.w};
    ENGINE_UNROLL
    for (int i = 0; i < kValues; i++) values[i] = Value(all[i * 4 / kValues], i);
  }
  ENGINE_DEVICE static float One(const uint8_t* row, int i) {
    if constexpr (kDType == KvDType::kF32) return reinterpret_cast<const float*>(row)[i];
    if constexpr (kDType == KvDType::kF16) return FloatOfHalf(reinterpret_cast<const uint16_t*>(row)[i]);
    return static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]);
  }

 private:
  ENGINE_DEVICE static float Value(uint32_t word, int i) {
    if constexpr (kDType == KvDType::kF32) return FloatOf(word);
    if constexpr (kDType == KvDType::kF16) return FloatOfHalf(static_cast<uint16_t>(i % 2 == 0 ? word : word >> 16));
    return static_cast<float>(static_cast<int8_t>(word >> 8 * (i % 4)));
  }
};

// One block and KV head within cache.keys or cache.values.
ENGINE_DEVICE uint8_t* KvBlock(const KvCache& cache, uint8_t* base, int block, int kv_head) {
  return base + (static_cast<size_t>(block) * static_cast<size_t>(cache.num_kv_heads) + static_cast<size_t>(kv_head)) *
                    KvBlockBytes(cache.dtype, cache.head_dim, cache.block_size);
}

// 16 bytes of a key from dimension `d` on, a multiple of what 16 bytes hold.
ENGINE_DEVICE int KeyPlace(const KvCache& cache, int offset, int d) {
  return (d * KvValueBytes(cache.dtype) / 16 * cache.block_size + offset) * 16;
}
ENGINE_DEVICE int ValuePlace(const KvCache& cache, int offset) {
  return offset * KvRowBytes(cache.dtype, cache.head_dim);
}
ENGINE_DEVICE float* KvScale(const KvCache& cache, uint8_t* block, int offset) {
  return reinterpret_cast<float*>(block + KvRowBytes(cache.dtype, cache.head_dim) * cache.block_size) + offset;
}

}  // namespace
}  // namespace engine::cuda
