#include "native/workspace.h"

#include <algorithm>

namespace engine {
namespace {

size_t ScratchBytes(const Plan& plan) {
  int32_t columns = 1, num_heads = 1, head_dim = 1;
  for (const Op& op : plan.ops) {
    if (const auto* linear = std::get_if<LinearOp>(&op)) {
      columns = std::max(columns, plan.weights[linear->weight].columns);
    } else if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const KvLayerInfo& layer = plan.kv_layers[attention->layer];
      num_heads = std::max(num_heads, plan.buffers[attention->q].width / layer.head_dim);
      head_dim = std::max(head_dim, layer.head_dim);
    }
  }
  const int32_t rows = std::max(plan.limits.max_tokens, plan.limits.max_rows);
  const size_t bytes = std::max(kernels::scratch_bytes(rows, columns, num_heads, head_dim),
                                kernels::sample_scratch_bytes(plan.vocab_size()));
  return (bytes + 63) / 64 * 64;
}

int64_t ExchangeFloats(const Plan& plan) {
  int64_t floats = 0;
  for (const Op& op : plan.ops) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const int32_t head_dim = plan.kv_layers[attention->layer].head_dim;
      const int32_t num_heads = plan.buffers[attention->q].width / head_dim;
      floats = std::max(floats, kernels::attention_exchange_floats(num_heads, head_dim, plan.limits.context_size));
    }
  }
  return floats;
}

}  // namespace

Failure Workspace::Allocate(const Plan& plan, const Schedule& schedule, int32_t num_threads) {
  codes_.resize(schedule.areas.size());
  kv_.resize(plan.kv_layers.size());
  rope_.resize(plan.rope_tables.size());
  scratch_bytes_ = ScratchBytes(plan);
  Carver measure(nullptr);
  Carve(plan, schedule, num_threads, &measure);
  if (!reservation_.Reserve(measure.bytes())) {
    return OutOfMemory(measure.bytes(), "the memory for activations and the KV cache");
  }
  Carver carve(reservation_.data());
  Carve(plan, schedule, num_threads, &carve);
  return {};
}

void Workspace::Carve(const Plan& plan, const Schedule& schedule, int32_t num_threads, Carver* carver) {
  const Limits& limits = plan.limits;
  for (const Rows rows : {Rows::kTokens, Rows::kLogits}) {
    const auto arena = static_cast<int32_t>(rows);
    arenas_[arena] = carver->Take<float>(static_cast<uint64_t>(plan.arena_widths[arena]) *
                                         static_cast<uint64_t>(plan.row_capacity(rows)));
  }
  for (size_t i = 0; i < codes_.size(); i++) {
    const auto elements = static_cast<uint64_t>(schedule.areas[i].max_elements);
    const int32_t chunk = schedule.areas[i].chunk;
    codes_[i] = {.codes = carver->Take<int8_t>(elements),
                 .scales = carver->Take<float>(elements / static_cast<uint64_t>(chunk)),
                 .sums = carver->Take<int32_t>(elements / kernels::kSumGroup),
                 .scaled_sums = carver->Take<float>(elements / static_cast<uint64_t>(chunk)),
                 .chunk = chunk,
                 .columns = 0};
  }
  for (size_t i = 0; i < kv_.size(); i++) {
    const auto [num_kv_heads, head_dim] = plan.kv_layers[i];
    const uint64_t bytes = static_cast<uint64_t>(limits.num_blocks) * static_cast<uint64_t>(num_kv_heads) *
                           kernels::kv_block_bytes(limits.kv_dtype, head_dim, limits.block_size);
    kv_[i] = {.keys = carver->Take<uint8_t>(bytes),
              .values = carver->Take<uint8_t>(bytes),
              .dtype = limits.kv_dtype,
              .num_kv_heads = num_kv_heads,
              .head_dim = head_dim,
              .block_size = limits.block_size};
  }
  const int64_t exchange_floats = ExchangeFloats(plan);
  exchange_ = {.results = carver->Take<float>(static_cast<uint64_t>(exchange_floats)),
               .capacity = exchange_floats,
               .done = shared_done_};
  for (size_t i = 0; i < rope_.size(); i++) {
    const uint64_t pairs = plan.rope_tables[i].inverse_frequencies.size();
    const uint64_t angles = static_cast<uint64_t>(limits.context_size) * pairs;
    rope_[i] = {carver->Take<float>(angles), carver->Take<float>(angles), static_cast<int32_t>(pairs)};
  }
  scratch_ = carver->Take<uint8_t>(static_cast<uint64_t>(num_threads) * scratch_bytes_);
}

void Workspace::ExtendRope(const Plan& plan, int32_t end) {
  for (size_t i = 0; i < rope_.size() && rope_end_ < end; i++) {
    const size_t start = static_cast<size_t>(rope_end_) * static_cast<size_t>(rope_[i].num_pairs);
    MakeAngles(plan.rope_tables[i], rope_end_, end, rope_[i].cos + start, rope_[i].sin + start);
  }
  rope_end_ = std::max(rope_end_, end);
}

}  // namespace engine
