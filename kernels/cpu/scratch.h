// Sizes of per-thread scratch, shared by the kernels that carve it up and by scratch.cc, which tells the session.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace engine::kernels {
namespace {

// Values of k quantised panels hold at once: their codes and a tile of activations stay in the first-level cache.
constexpr int32_t kDepth = 512;
constexpr size_t kQuantizedPanelsBytes = 32 << 10;

// Weight rows dequantised at once for the f32 product.
constexpr int32_t kFloatPanelRows = 48;

constexpr size_t linear_scratch_bytes(int32_t max_columns) {
  const size_t floats = static_cast<size_t>(kFloatPanelRows) * static_cast<size_t>(max_columns) * sizeof(float);
  return floats < kQuantizedPanelsBytes ? kQuantizedPanelsBytes : floats;
}

// Query rows, (token, head) pairs, that share one pass over keys and values.
constexpr int32_t kAttentionRows = 32;

// Three arrays of [kAttentionRows, head_dim], the scores of a chunk and the scales of its keys and values, and a
// chunk's keys or values as floats.
constexpr size_t attention_scratch_bytes(int32_t head_dim) {
  const size_t dim = static_cast<size_t>((head_dim + 15) / 16 * 16);
  const size_t rows = static_cast<size_t>(kAttentionRows);
  const size_t chunk = static_cast<size_t>(kAttentionChunk);
  return (3 * rows * dim + (rows + 2) * chunk + chunk * dim) * sizeof(float);
}

// A row's output of one chunk, its maximum and its sum.
constexpr int64_t attention_row_floats(int32_t head_dim) { return (head_dim + 15) / 16 * 16 + 2; }

// Keys or values of one block and KV head: block_size · head_dim values, for 8 bits then a float per position.
constexpr size_t kv_block_bytes_of(KvDType dtype, int32_t head_dim, int32_t block_size) {
  const size_t values = static_cast<size_t>(head_dim) * static_cast<size_t>(block_size);
  if (dtype == KvDType::kF32) return values * sizeof(float);
  if (dtype == KvDType::kF16) return values * sizeof(uint16_t);
  return (values + 3) / 4 * 4 + static_cast<size_t>(block_size) * sizeof(float);
}

// The sampler's arrays: logits, z and weights, ids, and two of (rank, index). Each has a whole number of vectors.
constexpr size_t kSampleScratchBytesPerToken = 3 * sizeof(float) + sizeof(int32_t) + 2 * 8;
constexpr int32_t sample_capacity(int32_t vocab_size) { return (vocab_size + 15) / 16 * 16; }

}  // namespace
}  // namespace engine::kernels
