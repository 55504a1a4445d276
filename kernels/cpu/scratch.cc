#include "scratch.h"

namespace engine::kernels {

size_t scratch_bytes(int32_t /*max_rows*/, int32_t max_columns, int32_t /*num_heads*/, int32_t head_dim) {
  const size_t linear = linear_scratch_bytes(max_columns);
  const size_t attention = attention_scratch_bytes(head_dim);
  return linear > attention ? linear : attention;
}

int64_t attention_exchange_floats(int32_t num_heads, int32_t head_dim, int32_t context_size) {
  const int64_t num_chunks = (static_cast<int64_t>(context_size) + kAttentionChunk - 1) / kAttentionChunk;
  return num_chunks * num_heads * attention_row_floats(head_dim);
}

size_t kv_block_bytes(KvDType dtype, int32_t head_dim, int32_t block_size) {
  return kv_block_bytes_of(dtype, head_dim, block_size);
}

size_t sample_scratch_bytes(int32_t vocab_size) {
  return static_cast<size_t>(sample_capacity(vocab_size)) * kSampleScratchBytesPerToken;
}

}  // namespace engine::kernels
