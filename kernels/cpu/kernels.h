// The contract between a CPU session and its kernels: plain structs, raw pointers, one table of functions per
// instruction set. Kernels know nothing of Node, plans or threads; they never allocate, print, throw or fail.
//
// Every function does a share of its work: part.index of part.count. Shares are disjoint, and results do not depend on
// part.count, on the instruction set, or on how many rows are computed together:
//   * a float dot product over K, of weights with activations, keeps 16 partial sums, lane i taking k = i, i + 16, … by
//   fused multiply-add in
//     ascending order, added at the end as a fixed tree (8 + 8, 4 + 4, 2 + 2, 1 + 1); a tail shorter than 16 counts as
//     if padded with zeros;
//   * a q8 product is exact in int32 within a storage block; blocks are added in ascending order by fused multiply-add;
//   * attention works in fixed chunks of kAttentionChunk positions, combined in ascending order (attention.inc).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace engine::kernels {

// Storage types by their GGUF id; the same rows as src/tensor/dtype.ts.
enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ4_XS = 23,
  kBF16 = 30,
  kTQ2_0 = 35,
  // Our own, in packed panels of 16 rows: 4 bits with a scale and a min per group of 32, 64 or 128 values, 4 bits and 8
  // bits with a scale per 32.
  kInt4 = 10004,
  kInt4Sym = 10005,
  kInt8 = 10008,
  kInt4G64 = 10064,
  kInt4G128 = 10128,
};

inline constexpr int32_t kAttentionChunk = 256;  // positions
inline constexpr int32_t kMaxSharedTiles = 256;  // of attention, by the parts of a call
inline constexpr int32_t kSumGroup = 16;         // values per activation sum
inline constexpr int32_t kPanelRows = 16;        // rows of a panel of a packed matrix
inline constexpr int32_t kActivationTile = 8;    // rows of 8-bit activations that lie together

// A share of the work. `unit` 0 leaves it to the kernel where shares begin; otherwise they begin at multiples of it, so
// that kernels with the same number of items have the same shares. It is a multiple of kShareUnit.
struct Part {
  int32_t index;
  int32_t count;
  int32_t unit = 0;
};
inline constexpr int32_t kShareUnit = 64;

// Some rows and columns of activations; columns at whole chunks.
struct Block {
  int32_t first_row, end_row;
  int32_t first_column, end_column;
};

// A weight matrix [rows, columns]: row by row as in most files, or packed (packed.h).
struct Matrix {
  const uint8_t* data;
  DType dtype;
  int32_t rows;
  int32_t columns;
  bool packed;
  size_t stride;  // bytes per row, or per panel of 16 rows
};

// Activations [rows, columns] as 8-bit integers: x ≈ codes · scale of the chunk. Rows are kept in tiles of
// kActivationTile, so that a product finds those of all its rows at one address; the last rows have a tile of 1, 2, 4
// or 8. The tile of `width` rows from row r starts at codes + r · columns, and likewise in scales and sums. There is
// memory for whole tiles.
struct QuantizedRows {
  int8_t* codes;       // per tile [columns / 4][width][4] −127 … 127
  float* scales;       // per tile [columns / chunk][width]
  int32_t* sums;       // per tile [columns / kSumGroup][width] sums of codes
  float* scaled_sums;  // per tile [columns / chunk][width] scale · sum of the chunk's codes
  int32_t chunk;       // values per scale: the block size of the weights they meet (32 or 256)
  int32_t columns;
};

// Rows of the tile that begins at `row`.
constexpr int32_t tile_width(int32_t row, int32_t num_rows) {
  const int32_t left = num_rows - row;
  return left > 4 ? kActivationTile : left > 2 ? 4 : left;
}

struct LinearArgs {
  float* out;              // [num_rows, weight.rows]
  const float* x;          // [num_rows, weight.columns]
  const QuantizedRows* q;  // the same x for q8 activations, else null
  int32_t num_rows;
  Matrix weight;
  const float* bias;  // [weight.rows] or null
  uint8_t* scratch;   // this thread's, scratch_bytes() long
};

// Angles of one RoPE variant, made by the session in double precision.
struct RopeTable {
  const float* cos;  // [context_size, num_pairs]
  const float* sin;  // [context_size, num_pairs]
  int32_t num_pairs;
};

struct RopeArgs {
  float* x;                  // [num_rows, width], rotated in place
  const int32_t* positions;  // [num_rows]
  int32_t num_rows;
  int32_t width;
  int32_t head_dim;
  bool interleaved;  // pairs (2i, 2i + 1) instead of (i, i + num_pairs)
  RopeTable table;
};

enum class KvDType : int32_t { kF32 = 0, kF16 = 1, kInt8 = 2 };

// Keys and values of one layer, each [num_blocks, num_kv_heads] of kv_block_bytes(); kv_cache.inc says what is in them.
struct KvCache {
  uint8_t* keys;
  uint8_t* values;
  KvDType dtype;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
};

struct WriteKvArgs {
  const float* k;  // [num_rows, num_kv_heads · head_dim]
  const float* v;
  const int32_t* slot_mapping;  // [num_rows] −1 stores nothing
  int32_t num_rows;
  KvCache cache;
};

// Where parts of a call that share rows leave what their chunks gave. The last of them to be done joins the chunks, in
// ascending order, so results do not depend on who that is. One for all parts of a call, and for one call at a time.
struct AttentionExchange {
  float* results;              // [capacity]
  int64_t capacity;            // floats; 0: rows are not shared
  std::atomic<int32_t>* done;  // [kMaxSharedTiles] chunks that are, all 0 between calls
};

struct AttentionArgs {
  float* out;  // [num_tokens, num_heads · head_dim]
  const float* q;
  const int32_t* query_start;   // [num_seqs + 1]
  const int32_t* context_lens;  // [num_seqs]
  const int32_t* block_tables;  // [num_seqs, max_blocks]
  int32_t num_seqs;
  int32_t max_blocks;
  int32_t num_heads;
  int32_t window;  // 0: none
  float scale;
  KvCache cache;
  AttentionExchange exchange;
  uint8_t* scratch;  // this thread's, scratch_bytes() long
};

// One record of the batch's sampling words (src/backend/sampling.ts), decoded.
struct SamplingRow {
  const float* logits;  // [vocab_size]
  int32_t position;     // absolute position of the token to be sampled
  int32_t choice;
  uint32_t seed_low;
  uint32_t seed_high;
  int32_t flags;  // kSample | kLogprobs
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  float typical_p;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  const int32_t* history;  // [history_length] token ids, the prompt's first
  int32_t history_length;
  int32_t prompt_length;
  const int32_t* bias_ids;  // [bias_length]
  const float* bias_values;
  int32_t bias_length;
  const uint32_t* mask;  // bits of allowed tokens, or null
  int32_t num_top;
};

inline constexpr int32_t kSample = 1;
inline constexpr int32_t kLogprobs = 2;

struct SampleArgs {
  SamplingRow row;
  int32_t vocab_size;
  uint8_t* scratch;     // this thread's, sample_scratch_bytes(vocab_size) long
  int32_t* token;       // −1 if none was asked for
  float* logprob;       // NaN if not asked for
  int32_t* top_ids;     // [num_top]
  float* top_logprobs;  // [num_top]
};

struct QuantizePanelArgs {
  uint8_t* out;           // packed_panel_bytes
  DType dtype;            // one of our own
  const float* rows;      // [16, columns], finite
  int32_t columns;        // a multiple of the type's group
  const float* weights;   // [columns] how much errors count, 0 … 1; null: all the same
  const float* feedback;  // [columns, columns] or null: what of an error in column j column k > j makes up for (GPTQ)
  float* scratch;         // quantize_scratch_floats(columns)
};

// One instruction set's kernels.
struct Kernels {
  const char* isa;  // "scalar", "avx2", …

  // out[r] = table[ids[r]]; out is [num_rows, table.columns]
  void (*embed)(float* out, const Matrix& table, const int32_t* ids, int32_t num_rows, Part part);
  // x[r] += table[ids[r]]
  void (*add_rows)(float* x, const Matrix& table, const int32_t* ids, int32_t num_rows, Part part);
  // Over groups of `columns` values; a buffer row may hold several groups (per-head norms).
  void (*rms_norm)(float* out, const float* x, const float* weight, int32_t num_groups, int32_t columns, float eps,
                   Part part);
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, int32_t num_rows,
                     int32_t columns, float eps, Part part);
  // x is [num_rows, out.columns]; makes the codes of a block of it.
  void (*quantize_rows)(const QuantizedRows& out, const float* x, int32_t num_rows, Block block);
  void (*linear)(const LinearArgs& args, Part part);
  void (*rope)(const RopeArgs& args, Part part);
  void (*write_kv)(const WriteKvArgs& args, Part part);
  void (*attention)(const AttentionArgs& args, Part part);
  void (*silu_mul)(float* out, const float* gate, const float* up, int64_t count, Part part);
  void (*gelu)(float* out, const float* x, int64_t count, bool approximate, Part part);
  void (*add)(float* x, const float* y, int64_t count, Part part);
  // Re-encodes panels first_panel … of a matrix stored by rows, exactly: out[num_panels · packed_panel_bytes()].
  void (*pack)(uint8_t* out, const Matrix& source, int32_t first_panel, int32_t num_panels);
  // One row of logits; rows are shared out by the session.
  void (*sample)(const SampleArgs& args);
  // One panel of one of our own types; panels are shared out by the caller.
  void (*quantize_panel)(const QuantizePanelArgs& args);

  // Peaks of one thread (peaks.inc); what they return keeps compilers from leaving the work out.
  // Reads `bytes`, a multiple of kReadUnit.
  int32_t (*read_bytes)(const uint8_t* data, int64_t bytes);
  // steps · kMultiplyAddStep multiply-adds of floats in registers.
  float (*multiply_add)(int64_t steps);
  // steps · kDotStep multiply-adds of codes of 4, 5, 6 or 8 bits with 8-bit activations; values [kDotValues] 0 … 127.
  int32_t (*multiply_codes)(const int8_t* values, int32_t bits, int64_t steps);
};

inline constexpr int64_t kReadUnit = 512;  // bytes
inline constexpr int64_t kMultiplyAddStep = 192;
inline constexpr int64_t kDotStep = 8192;
inline constexpr int64_t kDotValues = 256;

// Values and bytes per block of a storage type; block_size is 0 for an unknown type.
struct DTypeTraits {
  int32_t block_size;
  int32_t block_bytes;
};
DTypeTraits dtype_traits(DType dtype);

// Bytes of a panel of 16 rows in the packed form of a type; 0 if it has none.
size_t packed_panel_bytes(DType dtype, int32_t columns);
// Whether files hold this type packed; all others are stored by rows.
bool stored_packed(DType dtype);

// The best table this processor and its operating system can run, lowered (never raised) to `limit` if given:
// "scalar", "avx2", … Null if `limit` names no known level.
const Kernels* select(const char* limit);

// Bytes of per-thread scratch that linear and attention need for these sizes, or sampling; all 64-byte aligned.
size_t scratch_bytes(int32_t max_rows, int32_t max_columns, int32_t num_heads, int32_t head_dim);
size_t sample_scratch_bytes(int32_t vocab_size);

// Floats of exchange.results for one token that sees the whole context, or several that together see as much.
int64_t attention_exchange_floats(int32_t num_heads, int32_t head_dim, int32_t context_size);

// Bytes of the keys, or of the values, of one block and KV head.
size_t kv_block_bytes(KvDType dtype, int32_t head_dim, int32_t block_size);

// One row of any storage type as floats, exactly as llama.cpp dequantises; for loading vectors and for tests.
void dequantize_row(float* out, DType dtype, const uint8_t* row, int32_t columns);

}  // namespace engine::kernels
