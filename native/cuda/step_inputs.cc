#include "native/cuda/step_inputs.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace engine::cuda {
namespace {

template <class T>
void Fill(const T* to, const std::vector<T>& from, int32_t count, T rest) {
  T* end = std::copy(from.begin(), from.end(), const_cast<T*>(to));
  std::fill(end, const_cast<T*>(to) + count, rest);
}

// A copy of `from` here, and the address that it gets on the device.
template <class T>
const T* Append(const std::vector<T>& from, Carver* host, Carver* device) {
  T* to = host->Take<T>(from.size());
  if (to != nullptr) std::copy(from.begin(), from.end(), to);
  return device->Take<T>(from.size());
}

// The same element of the copy.
template <class T>
const T* Moved(const T* element, const std::vector<T>& from, const T* copy) {
  return copy + (element - from.data());
}

// The most in any layer: a layer with fewer fills its tiles less.
int32_t HeadsPerKv(const Plan& plan) {
  int32_t most = 1;
  for (const Op& op : plan.ops) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const KvLayerInfo& layer = plan.kv_layers[attention->layer];
      most = std::max(most, plan.buffers[attention->q].width / layer.head_dim / layer.num_kv_heads);
    }
  }
  return most;
}

bool HasManyTokens(const std::vector<int32_t>& query_start, size_t sequence) {
  return query_start[sequence + 1] - query_start[sequence] >= kManyTokens;
}

}  // namespace

TileCounts TileCountsOf(const Plan& plan, int32_t parts, const std::vector<int32_t>& query_start, int32_t num_tokens) {
  bool few = false, many = false;
  for (size_t s = 0; s + 1 < query_start.size(); s++) (HasManyTokens(query_start, s) ? many : few) = true;
  if (!many || !CanAttendMany(plan.limits.kv_dtype, parts)) return {num_tokens, 0};
  return {few ? num_tokens : 0, MaxManyAttentionTiles(num_tokens, HeadsPerKv(plan))};
}

Failure StepInputs::Reserve(const Batch& batch, const Bucket& bucket, bool* moved) {
  Carver measure(nullptr), device(nullptr);
  Lay(batch, bucket, nullptr, &measure, &device);
  *moved = measure.bytes() > memory_.size();
  if (!*moved) return {};
  // Twice what is needed, so that growing contexts do not come back here soon.
  const uint64_t bytes = 2 * measure.bytes();
  const DeviceApi& api = *device_.api;
  memory_.Release();
  int error = memory_.Allocate(api, bytes);
  if (error == 0) error = staging_.Allocate(api, bytes);
  if (error == 0) return {};
  memory_.Release();
  return api.is_out_of_memory(error) ? OutOfMemory(bytes, "the inputs of a step on " + std::string(device_.info.name))
                                     : device_.Check(error);
}

InputPlaces StepInputs::places(const Bucket& bucket) const {
  Carver device(memory_.data());
  return CarveInputs(bucket, &device);
}

int StepInputs::Send(Stream stream, const Batch& batch, const Bucket& bucket, const float* logits) {
  Carver host(staging_.data()), device(memory_.data());
  Lay(batch, bucket, logits, &host, &device);
  return device_.api->copy(stream, memory_.data(), staging_.data(), host.bytes());
}

void StepInputs::Lay(const Batch& batch, const Bucket& bucket, const float* logits, Carver* host,
                     Carver* device) const {
  const InputPlaces to = CarveInputs(bucket, host);
  CarveInputs(bucket, device);
  const auto num_seqs = static_cast<size_t>(batch.num_seqs()), columns = static_cast<size_t>(MaxBlocks(plan_));
  auto* tables = host->Take<int32_t>(num_seqs * columns);
  device->Take<int32_t>(num_seqs * columns);
  if (to.ids != nullptr) {
    Fill(to.ids, batch.token_ids, bucket.num_tokens, 0);
    Fill(to.positions, batch.positions, bucket.num_tokens, 0);
    Fill(to.slot_mapping, batch.slot_mapping, bucket.num_tokens, -1);
    LayTiles(batch, bucket, to);
    const auto given = static_cast<size_t>(batch.max_blocks());
    for (size_t s = 0; s < num_seqs; s++) {
      for (size_t b = 0; b < columns; b++) {
        // Absent blocks are before every window: any block may stand for them.
        const int32_t block = b < given ? batch.block_tables[s * given + b] : 0;
        tables[s * columns + b] = std::max(block, 0);
      }
    }
    auto* rows = const_cast<int32_t*>(to.rows);
    std::fill_n(rows, bucket.num_rows, 0);
    for (int32_t r = 0; r < batch.sampling.num_rows(); r++) rows[r] = batch.sampling.records[r].row;
    std::fill_n(const_cast<SamplingRow*>(to.sampling), bucket.num_rows, SamplingRow{});
    std::fill_n(const_cast<int32_t*>(to.steps), bucket.num_rows, 0);
  }
  if (bucket.sampling) LaySampling(batch, logits, const_cast<SamplingRow*>(to.sampling), host, device);
}

void StepInputs::LayTiles(const Batch& batch, const Bucket& bucket, const InputPlaces& to) const {
  const DeviceApi& api = *device_.api;
  const int32_t heads_per_kv = HeadsPerKv(plan_);
  if (bucket.tiles.few > 0) {
    auto* tiles = const_cast<AttentionTile*>(to.tiles);
    AttentionTile* end = tiles + api.make_attention_tiles(tiles, batch.query_start.data(), batch.context_lens.data(),
                                                          batch.num_seqs(), heads_per_kv);
    if (bucket.tiles.many > 0) {
      end = std::remove_if(tiles, end, [&](const AttentionTile& tile) {
        return HasManyTokens(batch.query_start, static_cast<size_t>(tile.sequence));
      });
    }
    std::fill(end, tiles + bucket.tiles.few, AttentionTile{});
  }
  if (bucket.tiles.many > 0) {
    auto* tiles = const_cast<ManyAttentionTile*>(to.many_tiles);
    const int32_t count = api.make_many_attention_tiles(tiles, batch.query_start.data(), batch.context_lens.data(),
                                                        batch.num_seqs(), heads_per_kv);
    std::fill(tiles + count, tiles + bucket.tiles.many, ManyAttentionTile{});
  }
}

void StepInputs::LaySampling(const Batch& batch, const float* logits, SamplingRow* rows, Carver* host,
                             Carver* device) const {
  const SamplingInputs& inputs = batch.sampling;
  const int32_t* history = Append(inputs.history.ids, host, device);
  const int32_t* bias_ids = Append(inputs.bias.ids, host, device);
  const float* bias_values = Append(inputs.bias.values, host, device);
  const uint32_t* mask = Append(inputs.mask, host, device);
  if (rows == nullptr) return;
  const int32_t vocab_size = plan_.vocab_size();
  for (int32_t r = 0; r < inputs.num_rows(); r++) {
    const float* row_logits = logits + static_cast<size_t>(r) * static_cast<size_t>(vocab_size);
    SamplingRow row = SamplingRowOf(inputs, r, row_logits, batch.positions[inputs.records[r].row], vocab_size);
    row.history = Moved(row.history, inputs.history.ids, history);
    row.bias_ids = Moved(row.bias_ids, inputs.bias.ids, bias_ids);
    row.bias_values = Moved(row.bias_values, inputs.bias.values, bias_values);
    if (row.mask != nullptr) row.mask = Moved(row.mask, inputs.mask, mask);
    rows[r] = row;
  }
}

}  // namespace engine::cuda
