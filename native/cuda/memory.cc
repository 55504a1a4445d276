#include "native/cuda/memory.h"

#include <algorithm>

namespace engine::cuda {
namespace {

// Of all linears of a plan.
struct LinearSizes {
  size_t halves = 0, sums = 0, scales = 0;
  size_t halved_weights = 0;
};

LinearSizes SizesOf(const Plan& plan, const Device& device, const std::vector<TiledMatrix>& matrices, int32_t parts) {
  const DeviceApi& api = *device.api;
  LinearSizes sizes;
  for (const Op& op : plan.ops) {
    const auto* linear = std::get_if<LinearOp>(&op);
    if (linear == nullptr) continue;
    const TiledMatrix& matrix = matrices[linear->weight];
    const int32_t rows = plan.row_capacity(plan.buffers[linear->x].rows);
    const PreparedBytes bytes = api.prepared_bytes(rows, matrix.columns, parts);
    sizes.halves = std::max(sizes.halves, bytes.halves);
    sizes.sums = std::max(sizes.sums, bytes.sums);
    sizes.scales = std::max(sizes.scales, bytes.scales);
    if (LinearKindOf(device.info.limits, rows) == LinearKind::kMany && matrix.format != TileFormat::kHalf) {
      sizes.halved_weights = std::max(sizes.halved_weights, api.half_tile_bytes(matrix));
    }
  }
  return sizes;
}

size_t PartialFloats(const Plan& plan, const DeviceApi& api) {
  const int32_t tokens = std::min(plan.limits.max_tokens, kSplitTokens);
  const int32_t chunks = std::min(CeilDivide(plan.limits.context_size, kAttentionChunk), kSplitChunks);
  size_t floats = 0;
  for (const Op& op : plan.ops) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const int32_t head_dim = plan.kv_layers[attention->layer].head_dim;
      const int32_t num_heads = plan.buffers[attention->q].width / head_dim;
      floats = std::max(floats, api.attention_partial_floats(tokens, num_heads, head_dim, chunks));
    }
  }
  return floats;
}

}  // namespace

void CarveAreas(const Plan& plan, const Device& device, const std::vector<TiledMatrix>& matrices, int32_t parts,
                Carver* activations, Carver* kv, Areas* areas) {
  const DeviceApi& api = *device.api;
  const Limits& limits = plan.limits;
  for (const Rows rows : {Rows::kTokens, Rows::kLogits}) {
    const auto arena = static_cast<int32_t>(rows);
    areas->arenas[arena] = activations->Take<float>(static_cast<uint64_t>(plan.arena_widths[arena]) *
                                                    static_cast<uint64_t>(plan.row_capacity(rows)));
  }
  const LinearSizes sizes = SizesOf(plan, device, matrices, parts);
  areas->halves = activations->Take<uint16_t>(sizes.halves / sizeof(uint16_t));
  areas->sums = activations->Take<float>(sizes.sums / sizeof(float));
  areas->scales = activations->Take<float>(sizes.scales / sizeof(float));
  areas->halved_weights = activations->Take<uint8_t>(sizes.halved_weights);
  areas->partials = activations->Take<float>(PartialFloats(plan, api));
  // A block has a row of tiles at least.
  areas->highest = activations->Take<Highest>(static_cast<uint64_t>(std::min(limits.max_rows, kMaxLinearRows)) *
                                              static_cast<uint64_t>(CeilDivide(plan.vocab_size(), kTileRows)));
  const int32_t blocks = std::min(limits.max_rows, device.info.limits.num_multiprocessors);
  areas->sample_scratch =
      activations->Take<uint8_t>(static_cast<uint64_t>(blocks) * api.sample_scratch_bytes(plan.vocab_size()));
  areas->results = activations->Take<uint8_t>(ResultBytes(limits.max_rows, true));
  areas->kept_results = activations->Take<uint8_t>(kMaxSteps * ResultBytes(limits.max_rows, true));
  areas->cos.resize(plan.rope_tables.size());
  areas->sin.resize(plan.rope_tables.size());
  for (size_t i = 0; i < plan.rope_tables.size(); i++) {
    const uint64_t angles = static_cast<uint64_t>(limits.context_size) * plan.rope_tables[i].inverse_frequencies.size();
    areas->cos[i] = activations->Take<float>(angles);
    areas->sin[i] = activations->Take<float>(angles);
  }
  areas->kv.resize(plan.kv_layers.size());
  for (size_t i = 0; i < plan.kv_layers.size(); i++) {
    const auto [num_kv_heads, head_dim] = plan.kv_layers[i];
    const uint64_t bytes = static_cast<uint64_t>(limits.num_blocks) * static_cast<uint64_t>(num_kv_heads) *
                           KvBlockBytes(limits.kv_dtype, head_dim, limits.block_size);
    areas->kv[i] = {.keys = kv->Take<uint8_t>(bytes),
                    .values = kv->Take<uint8_t>(bytes),
                    .dtype = limits.kv_dtype,
                    .num_kv_heads = num_kv_heads,
                    .head_dim = head_dim,
                    .block_size = limits.block_size};
  }
}

Failure DeviceOutOfMemory(const Device& device, const MemoryPlan& plan) {
  const auto number = [](uint64_t value) { return std::to_string(value); };
  return OutOfMemory(plan.total(), "a session on " + std::string(device.info.name) + " (weights " +
                                       number(plan.weights) + " bytes, keys and values " + number(plan.kv) +
                                       ", activations " + number(plan.activations) + "; " +
                                       number(device.info.free_bytes) + " of " + number(device.info.memory_bytes) +
                                       " were free)");
}

}  // namespace engine::cuda
