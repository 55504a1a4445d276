// Keys and values of the step's tokens into their blocks.
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 128;

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

template <KvDType kDType>
ENGINE_DEVICE void StoreOne(uint8_t* address, float x, const KvQuantizer* quantizer) {
  if constexpr (kDType == KvDType::kF32) *reinterpret_cast<float*>(address) = x;
  if constexpr (kDType == KvDType::kF16) *reinterpret_cast<uint16_t*>(address) = HalfOf(x);
  if constexpr (kDType == KvDType::kInt8) *reinterpret_cast<int8_t*>(address) = quantizer->Code(x);
}

// A warp per token and KV head. What pads a position to 16 bytes is set to zero, as attention multiplies it.
template <KvDType kDType>
ENGINE_KERNEL(kThreads, 8)
WriteKvKernel(WriteKvArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  constexpr int kBytes = KvValueBytes(kDType);
  constexpr int kValues = KvVector<kDType>::kValues;
  const KvCache& cache = args.cache;
  const int64_t item = static_cast<int64_t>(BlockIndex()) * (kThreads / 32) + ThreadIndex() / 32;
  if (item >= static_cast<int64_t>(args.num_rows) * cache.num_kv_heads) return;
  const int slot = args.slot_mapping[item / cache.num_kv_heads];
  if (slot < 0) return;
  const int kv_head = static_cast<int>(item % cache.num_kv_heads);
  const int offset = slot % cache.block_size;
  const float* k = args.k + item * cache.head_dim;
  const float* v = args.v + item * cache.head_dim;
  uint8_t* keys = KvBlock(cache, cache.keys, slot / cache.block_size, kv_head);
  uint8_t* values = KvBlock(cache, cache.values, slot / cache.block_size, kv_head);
  if constexpr (kDType == KvDType::kInt8) {
    const KvQuantizer key(k, cache.head_dim);
    const KvQuantizer value(v, cache.head_dim);
    if (ThreadIndex() % 32 == 0) {
      *KvScale(cache, keys, offset) = key.scale;
      *KvScale(cache, values, offset) = value.scale;
    }
    for (int i = ThreadIndex() % 32; i < RoundUp(cache.head_dim, kValues); i += 32) {
      const bool inside = i < cache.head_dim;
      StoreOne<kDType>(keys + KeyPlace(cache, offset, i) + i % kValues, inside ? k[i] : 0.0f, &key);
      StoreOne<kDType>(values + ValuePlace(cache, offset) + i, inside ? v[i] : 0.0f, &value);
    }
  } else {
    for (int i = ThreadIndex() % 32; i < RoundUp(cache.head_dim, kValues); i += 32) {
      const bool inside = i < cache.head_dim;
      StoreOne<kDType>(keys + KeyPlace(cache, offset, i) + i % kValues * kBytes, inside ? k[i] : 0.0f, nullptr);
      StoreOne<kDType>(values + ValuePlace(cache, offset) + i * kBytes, inside ? v[i] : 0.0f, nullptr);
    }
  }
}

}  // namespace

LaunchShape ShapeOfWriteKv(const WriteKvArgs& args) {
  return {CeilDivide(args.num_rows * args.cache.num_kv_heads, kThreads / 32), 1, kThreads, 0};
}

int LaunchWriteKv(Stream stream, const WriteKvArgs& args) {
  const LaunchShape shape = ShapeOfWriteKv(args);
  if (args.cache.dtype == KvDType::kF32) return Launch(stream, shape, &WriteKvKernel<KvDType::kF32>, args);
  if (args.cache.dtype == KvDType::kF16) return Launch(stream, shape, &WriteKvKernel<KvDType::kF16>, args);
  return Launch(stream, shape, &WriteKvKernel<KvDType::kInt8>, args);
}

}  // namespace engine::cuda
