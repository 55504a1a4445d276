// What becomes of queries, keys and values between their linears and attention, in one launch: RMSNorm of each head,
// rotation, keys and values into their blocks.
#include "kernels/cuda/kv_row.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotation.cuh"
#include "kernels/cuda/row_source.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kWarps = 4;
constexpr int32_t kThreads = 32 * kWarps;

static_assert(kMaxHeadDim <= kWarpColumns);  // RMSNorm of a head is a warp's

ENGINE_DEVICE void NormaliseHead(float* head, int head_dim, const float* weight, float eps) {
  const int lane = ThreadIndex() % 32;
  const float inverse = InverseRms(WarpSum(SumSquares(head, head_dim, lane, 32)), head_dim, eps);
  for (int i = lane; i < head_dim; i += 32) head[i] = Normalised(head[i], inverse, weight[i]);
}

// A warp per row and head: those of q, then keys, then values. Queries and keys pass through shared memory, where a
// lane finds the other half of a pair.
template <KvDType kDType>
ENGINE_KERNEL(kThreads, 8)
HeadsKernel(HeadsArgs args) {
  ENGINE_SHARED(heads, float[kWarps][kMaxHeadDim]);
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const KvCache& cache = args.cache;
  const int head_dim = cache.head_dim;
  const int heads_per_row = args.num_heads + 2 * cache.num_kv_heads;
  const int warp = ThreadIndex() / 32;
  const int lane = ThreadIndex() % 32;
  const int64_t item = static_cast<int64_t>(BlockIndex()) * kWarps + warp;
  const int64_t row = item / heads_per_row;
  if (row >= args.num_rows) return;
  const int of_row = static_cast<int>(item % heads_per_row);
  const bool is_query = of_row < args.num_heads;
  const int slot = is_query ? 0 : args.slot_mapping[row];
  if (slot < 0) return;
  const bool is_key = of_row < args.num_heads + cache.num_kv_heads;
  const int kv_head = (of_row - args.num_heads) % cache.num_kv_heads;
  if (!is_query && !is_key) {
    const float* v = args.v + (row * cache.num_kv_heads + kv_head) * head_dim;
    return StoreKvRow<kDType, KvPart::kValues>(cache, slot, kv_head, v);
  }

  const int64_t place = (is_query ? row * args.num_heads + of_row : row * cache.num_kv_heads + kv_head) * head_dim;
  const float* x = (is_query ? args.q : args.k) + place;
  float* const head = heads[warp];
  for (int i = lane; i < head_dim; i += 32) head[i] = x[i];
  const float* norm = is_query ? args.q_norm : args.k_norm;
  if (norm != nullptr) NormaliseHead(head, head_dim, norm, args.eps);
  SyncWarp();
  for (int pair = lane; pair < args.rotation.num_pairs; pair += 32) RotatePair(head, args.rotation, row, pair);
  SyncWarp();
  if (!is_query) return StoreKvRow<kDType, KvPart::kKeys>(cache, slot, kv_head, head);
  for (int i = lane; i < head_dim; i += 32) args.out[place + i] = head[i];
}

}  // namespace

LaunchShape ShapeOfHeads(const HeadsArgs& args) {
  const int64_t heads = static_cast<int64_t>(args.num_rows) * (args.num_heads + 2 * args.cache.num_kv_heads);
  return {static_cast<int32_t>((heads + kWarps - 1) / kWarps), 1, kThreads, 0};
}

int LaunchHeads(Stream stream, const HeadsArgs& args) {
  const LaunchShape shape = ShapeOfHeads(args);
  if (args.cache.dtype == KvDType::kF32) return Launch(stream, shape, &HeadsKernel<KvDType::kF32>, args);
  if (args.cache.dtype == KvDType::kF16) return Launch(stream, shape, &HeadsKernel<KvDType::kF16>, args);
  return Launch(stream, shape, &HeadsKernel<KvDType::kInt8>, args);
}

}  // namespace engine::cuda
