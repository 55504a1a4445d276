// Keys and values of the step's tokens into their blocks.
#include "kernels/cuda/kv_row.cuh"
#include "kernels/cuda/launch.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 128;

// A warp per token and KV head.
template <KvDType kDType>
ENGINE_KERNEL(kThreads, 8)
WriteKvKernel(WriteKvArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const KvCache& cache = args.cache;
  const int64_t item = static_cast<int64_t>(BlockIndex()) * (kThreads / 32) + ThreadIndex() / 32;
  if (item >= static_cast<int64_t>(args.num_rows) * cache.num_kv_heads) return;
  const int slot = args.slot_mapping[item / cache.num_kv_heads];
  if (slot < 0) return;
  const int kv_head = static_cast<int>(item % cache.num_kv_heads);
  StoreKvRow<kDType, KvPart::kKeys>(cache, slot, kv_head, args.k + item * cache.head_dim);
  StoreKvRow<kDType, KvPart::kValues>(cache, slot, kv_head, args.v + item * cache.head_dim);
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
