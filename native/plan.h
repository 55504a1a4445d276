// A plan as it crossed from TypeScript (src/backend/encode-plan.ts), decoded and verified once: every id, width and
// bound that kernels and the interpreter rely on holds for any Plan that DecodePlan accepted.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "native/op_codes.h"

namespace engine {

// Everything is allocated for these at load.
struct Limits {
  int32_t max_tokens;
  int32_t max_rows;
  int32_t max_sequences;
  int32_t context_size;  // tokens
  int32_t block_size;    // tokens
  int32_t num_blocks;
  kernels::KvDType kv_dtype;
};

// What a buffer's rows are: tokens of the step, or rows whose logits are wanted.
enum class Rows : int32_t { kTokens = 0, kLogits = 1 };

// Float32 [rows, width]; the base address is offset · row capacity of the arena.
struct BufferInfo {
  int32_t width;
  Rows rows;
  int32_t offset;  // floats per row of the arena
};

struct WeightInfo {
  int32_t file;
  int64_t offset;  // bytes
  kernels::DType dtype;
  int32_t rows;
  int32_t columns;
  int32_t transposed_stride;   // 0: rows are contiguous; else element (r, c) is value c · stride + r
  kernels::DType quantize_to;  // what is made of it at load; `dtype`: it is used as it is stored

  int32_t block_size() const { return kernels::dtype_traits(quantize_to).block_size; }
  // Of a matrix stored by rows.
  size_t row_bytes() const;
  // Bytes from the first to the end of the last value, in the file.
  uint64_t extent() const;
};

struct RopeInfo {
  double magnitude;
  std::vector<double> inverse_frequencies;  // one per rotated pair
};

// cos and sin [end − begin, pairs] of the angles of positions begin … end − 1, made in double precision.
void MakeAngles(const RopeInfo& table, int32_t begin, int32_t end, float* cos, float* sin);

struct KvLayerInfo {
  int32_t num_kv_heads;
  int32_t head_dim;
};

struct Plan {
  Limits limits;
  std::vector<BufferInfo> buffers;
  std::vector<WeightInfo> weights;
  std::vector<RopeInfo> rope_tables;
  std::vector<KvLayerInfo> kv_layers;
  std::vector<Op> ops;
  int32_t logits;           // buffer
  int32_t arena_widths[2];  // floats per row, by Rows
  // The head: the linear that makes the logits, by its place in `ops`, and the buffer that it reads; −1 without one.
  int32_t head = -1;
  int32_t hidden = -1;
  // Positions that any layer's attention sees, counted back from the query and including it; the context size if one
  // has no window.
  int32_t window = 0;

  int32_t vocab_size() const { return buffers[logits].width; }
  int32_t hidden_size() const { return hidden < 0 ? 0 : buffers[hidden].width; }
  int32_t row_capacity(Rows rows) const { return rows == Rows::kTokens ? limits.max_tokens : limits.max_rows; }
  // Token ids and positions of a batch are below these: the rows of every table they are looked up in.
  int32_t num_token_ids() const;
  int32_t num_positions() const;
};

// Returns what is wrong with the words, or an empty string.
std::string DecodePlan(std::span<const int32_t> words, size_t num_files, Plan* plan);

// The second half of decoding, in verify.cc: what an op says fits the tables and limits.
std::string VerifyPlan(const Plan& plan, size_t num_files);

}  // namespace engine
