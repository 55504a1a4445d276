// A warp writes one token's key or value of a KV head into the cache.
#pragma once

#include <type_traits>

#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

// A row of the cache, by the rules of 8-bit activations (kernels/cpu/kv_cache.inc): scale = max |x| / 127, codes
// rounded to even; below 2^−100 a row is zero, and with an infinity or a NaN its scale is NaN.
struct KvQuantizer {
  float scale;
  float inverse;

  ENGINE_DEVICE KvQuantizer(const float* row, int count) {
    uint32_t largest = 0;
    for (int i = ThreadIndex() % 32; i < count; i += 32) {
      const uint32_t magnitude = BitsOf(row[i]) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      const uint32_t other = ShuffleXor(largest, mask);
      largest = other > largest ? other : largest;
    }
    const float amax = FloatOf(largest);
    const bool finite = largest < kInfinityBits;
    const bool usable = finite && amax >= 0x1p-100f;
    scale = !finite ? NotANumber() : usable ? Divide(amax, 127.0f) : 0.0f;
    inverse = usable ? Divide(127.0f, amax) : 0.0f;
  }
  ENGINE_DEVICE int8_t Code(float x) const {
    if (inverse == 0.0f) return 0;
    const float code = Multiply(x, inverse);
    return static_cast<int8_t>(RoundEven(code < -127.0f ? -127.0f : code > 127.0f ? 127.0f : code));
  }
};

enum class KvPart : int32_t { kKeys, kValues };

// `row` [cache.head_dim] becomes what slot `slot` holds. What pads a position to 16 bytes is set to zero, as attention
// multiplies it.
template <KvDType kDType, KvPart kPart>
ENGINE_DEVICE void StoreKvRow(const KvCache& cache, int slot, int kv_head, const float* row) {
  constexpr int kValues = KvVector<kDType>::kValues;
  uint8_t* const base = kPart == KvPart::kKeys ? cache.keys : cache.values;
  uint8_t* const block = KvBlock(cache, base, slot / cache.block_size, kv_head);
  const int offset = slot % cache.block_size;
  const auto store = [&](auto value_of) {
    for (int i = ThreadIndex() % 32; i < RoundUp(cache.head_dim, kValues); i += 32) {
      const auto value = value_of(i < cache.head_dim ? row[i] : 0.0f);
      uint8_t* const to = kPart == KvPart::kKeys
                              ? block + KeyPlace(cache, offset, i) + i % kValues * static_cast<int>(sizeof value)
                              : block + ValuePlace(cache, offset) + i * static_cast<int>(sizeof value);
      *reinterpret_cast<std::remove_const_t<decltype(value)>*>(to) = value;
    }
  };
  if constexpr (kDType == KvDType::kF32) store([](float x) { return x; });
  if constexpr (kDType == KvDType::kF16) store([](float x) { return HalfOf(x); });
  if constexpr (kDType == KvDType::kInt8) {
    const KvQuantizer quantizer(row, cache.head_dim);
    if (ThreadIndex() % 32 == 0) *KvScale(cache, block, offset) = quantizer.scale;
    store([&](float x) { return quantizer.Code(x); });
  }
}

}  // namespace
}  // namespace engine::cuda
