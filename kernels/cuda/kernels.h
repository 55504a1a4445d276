// The contract between a CUDA session and its kernels: plain structs of device pointers, one function per kernel that
// puts it on a stream, and the geometry of each launch as data. Nothing here allocates, waits, prints or throws;
// functions return a cudaError_t as an integer, 0 for success.
//
// Activations are float32 in buffers, as on the CPU. Linear layers and embeddings compute the reference's
// `activations: 'f32'` variant up to a tolerance: what a linear reads is rounded to half precision once, scaled by a
// power of two per row so that nothing overflows (PreparedRows; with two parts per value it keeps 22 bits), products
// are exact and sums float32. Weights are exact but for what tiles.h says. There is no q8 variant: a GPU gains nothing
// by it.
//
// Results do not depend on scheduling: no sum is made with atomics, every order is fixed. With at most kMaxLinearRows
// rows in a step they do not depend on the other rows either, bit for bit. With more, linear layers read weights
// rounded to half precision, in another order, and again a row's result is the same whatever the others are:
// LinearBatch and LinearMany give the same bits, and so, in the emulator, does LinearWarpgroup. Attention is another
// function of a row's own sequence where that catches up by kManyTokens or more (LaunchAttentionMany).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/kernels.h"
#include "kernels/cuda/tiles.h"

struct CUstream_st;

namespace engine::cuda {

using kernels::DType;
using kernels::KvDType;
using kernels::SamplingRow;

// Launches on a stream happen one after another. With `overlaps` (compute capability 9.0 and later) each may begin
// while the one before it ends: it fetches weights already, which nobody writes, and waits before it touches anything
// else (primitives.cuh).
struct Stream {
  CUstream_st* handle;
  bool overlaps;
};

// What launches depend on of a device.
struct DeviceLimits {
  int32_t compute_capability;  // 80, 86, 89, 90, 100
  int32_t num_multiprocessors;
  int32_t shared_block_bytes;  // most a block may ask for
  int32_t shared_multiprocessor_bytes;
  bool warpgroups = false;  // HasLinearWarpgroup
};

// Bytes of a block's shared memory that the variables of a kernel take beside shared_bytes, where it asks for any.
inline constexpr int32_t kSharedVariableBytes = 256;

struct LaunchShape {
  int32_t grid_x, grid_y;  // blocks
  int32_t threads;         // per block
  int32_t shared_bytes;    // dynamic
};

// Rows that one pass over the weights of Linear serves.
inline constexpr int32_t kMaxLinearRows = 32;
// Rows up to which weights are made halves where they are used: beyond, a copy for all rows is made first.
inline constexpr int32_t kMaxBatchRows = 256;
inline constexpr int32_t kMaxHeadDim = 256;
inline constexpr int32_t kAttentionChunk = kernels::kAttentionChunk;
// Query rows, (token, head) pairs of a sequence, that share a pass over keys and values.
inline constexpr int32_t kAttentionRows = 8;

// --- Embeddings ------------------------------------------------------------------------------------------------------

struct EmbedArgs {
  float* out;  // [num_rows, table.columns]
  TiledMatrix table;
  const int32_t* ids;  // [num_rows]
  int32_t num_rows;
  bool add;  // to what is in `out`
};
LaunchShape ShapeOfEmbed(const EmbedArgs& args);
int LaunchEmbed(Stream stream, const EmbedArgs& args);

// --- Row by row ------------------------------------------------------------------------------------------------------

struct NormArgs {
  float* out;           // [num_rows, columns]
  const float* x;       // may be `out`
  const float* weight;  // [columns]
  const float* bias;    // [columns] or null; LayerNorm only
  int32_t num_rows;     // or groups of columns (per-head norms)
  int32_t columns;
  float eps;
};
LaunchShape ShapeOfNorm(const NormArgs& args);
int LaunchRmsNorm(Stream stream, const NormArgs& args);
int LaunchLayerNorm(Stream stream, const NormArgs& args);

// How heads are turned at each row's position; num_pairs is 0 where they are not.
struct HeadRotation {
  const int32_t* positions;  // [num_rows]
  const float* cos;          // [context_size, num_pairs]
  const float* sin;
  int32_t num_pairs;
  bool interleaved;  // pairs (2i, 2i + 1) instead of (i, i + num_pairs)
};

struct RopeArgs {
  float* x;  // [num_rows, width], rotated in place
  HeadRotation rotation;
  int32_t num_rows, width, head_dim;
};
LaunchShape ShapeOfRope(const RopeArgs& args);
int LaunchRope(Stream stream, const RopeArgs& args);

// One thread per value.
LaunchShape ShapeOfPointwise(const DeviceLimits& limits, int64_t count);
int LaunchSiluMul(Stream stream, const DeviceLimits& limits, float* out, const float* gate, const float* up,
                  int64_t count);
int LaunchGelu(Stream stream, const DeviceLimits& limits, float* out, const float* x, int64_t count, bool approximate);
// x += y
int LaunchAdd(Stream stream, const DeviceLimits& limits, float* x, const float* y, int64_t count);

// out[r] = x[rows[r]]
struct SelectRowsArgs {
  float* out;           // [num_rows, width]
  const float* x;       // [.., width]
  const int32_t* rows;  // [num_rows]
  int32_t num_rows, width;
};
LaunchShape ShapeOfSelectRows(const SelectRowsArgs& args);
int LaunchSelectRows(Stream stream, const SelectRowsArgs& args);

// --- The cache of keys and values ------------------------------------------------------------------------------------

// Of one layer, each [num_blocks, num_kv_heads] of KvBlockBytes. Keys lie [head_dim / v][block_size][v] with v values
// in 16 bytes, so that lanes with a position each read side by side; values [block_size][head_dim], both padded to 16
// bytes per position. 8-bit codes have a float scale per position, [block_size] behind the codes.
struct KvCache {
  uint8_t* keys;
  uint8_t* values;
  KvDType dtype;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
};
constexpr int32_t KvValueBytes(KvDType dtype) { return dtype == KvDType::kF32 ? 4 : dtype == KvDType::kF16 ? 2 : 1; }
constexpr int32_t KvRowBytes(KvDType dtype, int32_t head_dim) { return RoundUp(head_dim * KvValueBytes(dtype), 16); }
constexpr size_t KvBlockBytes(KvDType dtype, int32_t head_dim, int32_t block_size) {
  const int32_t row = KvRowBytes(dtype, head_dim) + (dtype == KvDType::kInt8 ? 4 : 0);
  return static_cast<size_t>(RoundUp(row * block_size, 16));
}

// --- Linear layers ---------------------------------------------------------------------------------------------------

// How values of 8 rows lie in prepared rows: as lanes take them from registers (mma), or in the matrices of 8 rows by 8
// columns that a warpgroup reads from shared memory (wgmma).
enum class ActivationOrder : int32_t { kLanes, kCores };

// Rows of activations as the matrix unit takes them: x ≈ scale · Σ halves of all parts. Rows are padded to whole tiles
// of kTokenTile with zeros, columns to kColumnUnit.
struct PreparedRows {
  uint16_t* halves;  // [parts][row tiles][columns · kTokenTile] by ActivationPlaceOf, ActivationCoreOf
  float* sums;       // [row tiles][columns / 16][kTokenTile] of 16 halves of all parts
  float* scales;     // [row tiles · kTokenTile] powers of two; NaN for a row with an infinity or a NaN
  int32_t num_rows;
  int32_t columns;  // padded
  int32_t parts;    // 1, or 2: the second is what the first has rounded away
  ActivationOrder order;

  constexpr int32_t row_tiles() const { return CeilDivide(num_rows, kTokenTile); }
};
// Bytes for num_rows rows of x of `columns` values, each 16-byte aligned.
struct PreparedBytes {
  size_t halves, sums, scales;
};
PreparedBytes PreparedBytesOf(int32_t num_rows, int32_t columns, int32_t parts);

// What rows are prepared from: x, or rmsNorm(x) · norm, or silu(x) · up, with the bits of these ops.
struct RowSource {
  const float* x;     // [num_rows, columns]
  const float* norm;  // [columns] or null
  const float* up;    // [num_rows, columns] or null
  float eps;          // of the norm
  int32_t columns;
};
struct PrepareArgs {
  PreparedRows out;
  RowSource source;
};
LaunchShape ShapeOfPrepare(const PrepareArgs& args);
int LaunchPrepare(Stream stream, const PrepareArgs& args);

// What becomes of the products of the rows with up to kMaxLinearParts matrices.
enum class LinearEnd : int32_t {
  kStore,    // parts[i].out = product
  kAdd,      // parts[i].out += product, as LaunchAdd would afterwards
  kSiluMul,  // parts[0].out = silu(product 0) · product 1; both matrices have as many rows
  kHeads,    // by role: q is turned and stored in `out`, k turned and, like v, put into the cache
};
enum class HeadRole : int32_t { kQ, kK, kV };
inline constexpr int32_t kMaxLinearParts = 3;
struct LinearPart {
  TiledMatrix weight;
  const float* bias;  // [weight.rows] or null
  float* out;         // [num_rows, weight.rows]; null for k and v of kHeads
  HeadRole role;      // kHeads
};
// The highest product of a row among those of a block, as HighestIndex of the sampling kernel chooses.
struct Highest {
  float value;
  int32_t id;  // −1: none is above −∞
};

struct LinearFewArgs {
  // source.x null: the rows of `x` are prepared. Otherwise every block prepares them for itself, with the bits of
  // LaunchPrepare, and of `x` only the sizes count (CanPrepareInBlocks).
  RowSource source;
  PreparedRows x;
  LinearPart parts[kMaxLinearParts];  // of one format, each with the columns of x
  int32_t num_parts;
  LinearEnd end;
  // kHeads
  HeadRotation rotation;
  const int32_t* slot_mapping;  // [num_rows] −1 stores nothing
  KvCache cache;
  // kStore of one part: [num_rows, blocks of the launch], or null.
  Highest* highest;
};

struct LinearArgs {
  float* out;  // [num_rows, weight.rows]
  PreparedRows x;
  TiledMatrix weight;
  const float* bias;  // [weight.rows] or null
  bool add;           // to what is in `out`, as LaunchAdd would afterwards
};
// The same product for LaunchLinear.
inline LinearFewArgs FewOf(const LinearArgs& args) {
  LinearFewArgs few = {};
  few.x = args.x;
  few.parts[0] = {args.weight, args.bias, args.out, HeadRole::kQ};
  few.num_parts = 1;
  few.end = args.add ? LinearEnd::kAdd : LinearEnd::kStore;
  return few;
}

// Which of the kernels serves so many rows.
enum class LinearKind : int32_t { kFew, kBatch, kMany, kWarpgroup };
constexpr LinearKind LinearKindOf(int32_t num_rows) {
  return num_rows <= kMaxLinearRows  ? LinearKind::kFew
         : num_rows <= kMaxBatchRows ? LinearKind::kBatch
                                     : LinearKind::kMany;
}
constexpr LinearKind LinearKindOf(const DeviceLimits& limits, int32_t num_rows) {
  return limits.warpgroups && num_rows > kMaxLinearRows ? LinearKind::kWarpgroup : LinearKindOf(num_rows);
}
// How the warps of a block share its tiles: each row of tiles is cut along k among `split_k` warps.
struct LinearTiling {
  int32_t split_k;
  int32_t row_tiles;  // of a block at a time
  int32_t stages;     // tiles on their way, per warp
  int32_t token_tiles;
  int32_t all_row_tiles;  // of all parts
};
LinearTiling LinearTilingOf(const DeviceLimits& limits, const LinearFewArgs& args);
LaunchShape ShapeOfLinear(const DeviceLimits& limits, const LinearFewArgs& args);
// Up to kMaxLinearRows rows: reads every weight once.
int LaunchLinear(Stream stream, const DeviceLimits& limits, const LinearFewArgs& args);
// Whether blocks can hold the rows: few rows that are not too long.
bool CanPrepareInBlocks(const DeviceLimits& limits, const PreparedRows& x);
// Whether products with heads of this shape can end with kHeads; LaunchHeads does what this cannot.
bool CanEndWithHeads(const HeadRotation& rotation, const KvCache& cache);

// Up to kMaxBatchRows rows: weights in any format, read once per 64 rows, or per 128 where there are more than 64.
LaunchShape ShapeOfLinearBatch(const LinearArgs& args);
int LaunchLinearBatch(Stream stream, const LinearArgs& args);

// Many rows, in two steps: weights as halves, unless they are, in `out` of HalfTileBytes; then a product of large
// tiles.
size_t HalfTileBytes(const TiledMatrix& matrix);
LaunchShape ShapeOfHalve(const TiledMatrix& matrix);
int LaunchHalve(Stream stream, uint8_t* out, const TiledMatrix& matrix);
// The matrix that LaunchHalve made in `out`.
TiledMatrix HalvedMatrix(const uint8_t* out, const TiledMatrix& matrix);
// args.weight is kHalf.
LaunchShape ShapeOfLinearMany(const LinearArgs& args);
int LaunchLinearMany(Stream stream, const LinearArgs& args);

// The products of a warpgroup (compute capability 9.0 alone): more than kMaxLinearRows rows, weights in any format,
// rows in ActivationOrder::kCores. Takes the place of LaunchLinearBatch and LaunchLinearMany.
LaunchShape ShapeOfLinearWarpgroup(const DeviceLimits& limits, const LinearArgs& args);
int LaunchLinearWarpgroup(Stream stream, const DeviceLimits& limits, const LinearArgs& args);
// Whether there is code of it for the device in use: the kernels must have been compiled for sm_90a.
bool HasLinearWarpgroup();

// --- Keys and values -------------------------------------------------------------------------------------------------

struct WriteKvArgs {
  const float* k;  // [num_rows, num_kv_heads · head_dim]
  const float* v;
  const int32_t* slot_mapping;  // [num_rows] −1 stores nothing
  int32_t num_rows;
  KvCache cache;
};
LaunchShape ShapeOfWriteKv(const WriteKvArgs& args);
int LaunchWriteKv(Stream stream, const WriteKvArgs& args);

// q, k and v of tokens in one launch: RMSNorm of each head, rotation, keys and values into their blocks. What
// LaunchRmsNorm, LaunchRope and LaunchWriteKv do one after another, bit for bit; k is left as it was.
struct HeadsArgs {
  float* out;      // [num_rows, num_heads · head_dim] the queries
  const float* q;  // may be `out`
  const float* k;  // [num_rows, num_kv_heads · head_dim]
  const float* v;
  const float* q_norm;  // [head_dim] weight, or null
  const float* k_norm;
  float eps;
  HeadRotation rotation;
  const int32_t* slot_mapping;  // [num_rows] −1 stores nothing
  int32_t num_rows, num_heads;
  KvCache cache;
};
LaunchShape ShapeOfHeads(const HeadsArgs& args);
int LaunchHeads(Stream stream, const HeadsArgs& args);

// Tokens of one sequence whose heads make at most kAttentionRows rows.
struct AttentionTile {
  int32_t sequence;
  int32_t first_token;
  int32_t num_tokens;
  int32_t first_position;
};
// Writes the tiles of a batch to out[number of tokens], and returns how many there are.
int32_t MakeAttentionTiles(AttentionTile* out, const int32_t* query_start, const int32_t* context_lens,
                           int32_t num_seqs, int32_t heads_per_kv);

struct AttentionArgs {
  float* out;  // [num_tokens, num_heads · head_dim]
  const float* q;
  const AttentionTile* tiles;   // [num_tiles]
  const int32_t* block_tables;  // [num_seqs, max_blocks]
  float* partials;              // AttentionPartialFloats; unused without `split`
  int32_t num_tokens, num_tiles, max_blocks, num_heads;
  int32_t num_chunks;  // of the longest context
  int32_t window;      // 0: none
  float scale;
  KvCache cache;
  // Whether each chunk is a block's (few tokens, long contexts), then joined by a second kernel; otherwise a block goes
  // through all chunks of its tile. The results are the same, bit for bit.
  bool split;
};
size_t AttentionPartialFloats(int32_t num_tokens, int32_t num_heads, int32_t head_dim, int32_t num_chunks);
LaunchShape ShapeOfAttention(const AttentionArgs& args);
LaunchShape ShapeOfAttentionJoin(const AttentionArgs& args);
int LaunchAttention(Stream stream, const AttentionArgs& args);

// Sequences that catch up by so many tokens in a step go through LaunchAttentionMany, where CanAttendMany; all others
// through LaunchAttention. Which of the two a row goes through depends on its own sequence alone.
inline constexpr int32_t kManyTokens = 16;
// Query rows of a block of LaunchAttentionMany.
inline constexpr int32_t kManyAttentionRows = 64;

// kManyAttentionRows (token, head) pairs of a sequence and any KV head, counted token by token over the heads of the KV
// head. What is there of them: pairs of num_tokens tokens.
struct ManyAttentionTile {
  int32_t sequence;
  int32_t first_token;     // of the sequence in the step
  int32_t first_position;  // its position
  int32_t num_tokens;      // of the sequence in the step; 0: the tile is empty
  int32_t first_row;       // pair
};
// Tiles of all sequences with at least kManyTokens tokens, most work first; returns how many there are, at most
// MaxManyAttentionTiles.
int32_t MakeManyAttentionTiles(ManyAttentionTile* out, const int32_t* query_start, const int32_t* context_lens,
                               int32_t num_seqs, int32_t heads_per_kv);
constexpr int32_t MaxManyAttentionTiles(int32_t num_tokens, int32_t heads_per_kv) {
  return num_tokens / kManyTokens + static_cast<int32_t>(int64_t{num_tokens} * heads_per_kv / kManyAttentionRows);
}

struct ManyAttentionArgs {
  float* out;  // [num_tokens, num_heads · head_dim]
  const float* q;
  const ManyAttentionTile* tiles;  // [num_tiles]
  const int32_t* block_tables;     // [num_seqs, max_blocks]
  int32_t num_tiles, max_blocks, num_heads;
  int32_t window;  // 0: none
  float scale;
  KvCache cache;  // f16 or int8
};
// Queries are rounded to halves once, so where activations have two parts or keys and values 32 bits it is not for
// them.
constexpr bool CanAttendMany(KvDType dtype, int32_t parts) { return dtype != KvDType::kF32 && parts == 1; }
LaunchShape ShapeOfAttentionMany(const ManyAttentionArgs& args);
int LaunchAttentionMany(Stream stream, const ManyAttentionArgs& args);

// --- Sampling --------------------------------------------------------------------------------------------------------

// Tokens, log-probabilities and alternatives of src/backend/reference-sampling.ts, the same as on the CPU for the same
// logits, bit for bit.
struct SampleArgs {
  const SamplingRow* rows;  // [num_rows] with device pointers
  int32_t num_rows;
  int32_t vocab_size;
  int32_t num_top;         // width of top_ids and top_logprobs
  uint8_t* scratch;        // blocks of the launch · SampleScratchBytes
  const Highest* highest;  // [num_rows, num_highest] of the logits as LaunchLinear left them, or null
  int32_t num_highest;
  int32_t* tokens;      // [num_rows] −1 if none was asked for
  float* logprobs;      // [num_rows] NaN if not asked for
  int32_t* top_ids;     // [num_rows, num_top]
  float* top_logprobs;  // [num_rows, num_top]
};
size_t SampleScratchBytes(int32_t vocab_size);
LaunchShape ShapeOfSample(const DeviceLimits& limits, const SampleArgs& args);
int LaunchSample(Stream stream, const DeviceLimits& limits, const SampleArgs& args);

// --- The next step ---------------------------------------------------------------------------------------------------

// Where a step's results lie, or those of several steps, one after another.
struct StepResults {
  int32_t* tokens;      // [num_rows]
  float* logprobs;      // [num_rows]
  int32_t* top_ids;     // [num_rows, num_top]
  float* top_logprobs;  // [num_rows, num_top]
};

// After a step in which every sequence had one token and one row, so that token, tile and row r are sequence r's: keeps
// its results, and makes of its inputs those of the next step, in which each sequence has the token that was sampled. A
// row for which none was (padding, or no token is allowed) stays as it is, and has none from then on.
struct AdvanceArgs {
  int32_t num_rows;
  int32_t num_top;
  int32_t block_size, max_blocks;
  int32_t* ids;                 // [num_rows]
  int32_t* positions;           // [num_rows]
  int32_t* slot_mapping;        // [num_rows]
  AttentionTile* tiles;         // [num_rows]
  SamplingRow* sampling;        // [num_rows]
  const int32_t* block_tables;  // [num_rows, max_blocks]
  int32_t* steps;               // [num_rows] of each row that have been kept
  StepResults results;          // of the step
  StepResults kept;             // [steps, num_rows]
};
LaunchShape ShapeOfAdvance(const AdvanceArgs& args);
int LaunchAdvance(Stream stream, const AdvanceArgs& args);

}  // namespace engine::cuda
