#include "scratch.h"

namespace engine::kernels {

size_t scratch_bytes(int32_t /*max_rows*/, int32_t max_columns, int32_t /*num_heads*/, int32_t head_dim) {
  const size_t linear = linear_scratch_bytes(max_columns);
  const size_t attention = attention_scratch_bytes(head_dim);
  return linear > attention ? linear : attention;
}

size_t sample_scratch_bytes(int32_t vocab_size) {
  return static_cast<size_t>(sample_capacity(vocab_size)) * kSampleScratchBytesPerToken;
}

}  // namespace engine::kernels
