// Causal attention for sequences with many tokens in a step, on the matrix unit (FlashAttention-2, arXiv 2307.08691).
// For one query row, a (token, head) pair:
//   * q · scale · log2 e is rounded to halves, scaled by a power of two as prepared rows are; scores s are exact
//   products
//     with halves or codes of keys, summed in float32, times that power and, of 8 bits, the key's scale;
//   * chunks of 64 positions (32 for wide heads) follow in ascending order; at each the running maximum m grows, and
//   sums
//     are scaled by 2^(old m − new m);
//   * weights 2^(s − m + 10) are summed in float32 and, times the value's factor, rounded to halves: what is 2^24 times
//     smaller than the largest still has 11 bits. out = Σ weight · v / Σ weight.
// Chunks begin at fixed positions and those a row does not see change nothing, so its bits do not depend on the other
// rows of its tile, as long as values are finite: none times infinity is not a number.
//
// A tile is of (token, head) pairs of a KV head rather than tokens of one head. From 64 tokens on both read each key 64
// times less often than there are rows; with fewer tokens only pairs fill a block, and keys are read once instead of
// once per head.
#include <algorithm>

#include "kernels/cuda/kv_stages.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kWarps = 4;
constexpr int32_t kThreads = 32 * kWarps;
constexpr int32_t kWarpRows = 16;
static_assert(kWarps * kWarpRows == kManyAttentionRows);

// On a multiprocessor, by registers: the output alone takes kDim / 2 of each thread's.
template <int kDim>
constexpr int32_t kBlocks = kDim <= 64    ? 4
                            : kDim <= 128 ? 3
                                          : 1;

// Largest weights are 2^kWeightBits.
constexpr float kWeightBits = 10.0f;

ENGINE_DEVICE int FirstVisible(const ManyAttentionArgs& args, int position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
}

// The pairs of the block's tile, with its KV head.
class TileRows {
 public:
  ENGINE_DEVICE explicit TileRows(const ManyAttentionArgs& args)
      : args_(args), tile_(args.tiles[BlockIndex()]), heads_per_kv_(args.num_heads / args.cache.num_kv_heads) {}

  ENGINE_DEVICE int sequence() const { return tile_.sequence; }
  ENGINE_DEVICE int first() const { return tile_.first_row; }
  // Less than first() if there are none.
  ENGINE_DEVICE int last() const {
    const int end = tile_.num_tokens * heads_per_kv_;
    return (end < first() + kManyAttentionRows ? end : first() + kManyAttentionRows) - 1;
  }
  ENGINE_DEVICE int position(int row) const { return tile_.first_position + row / heads_per_kv_; }
  // Of its first value in q and out.
  ENGINE_DEVICE size_t Place(int row) const {
    const int token = tile_.first_token + row / heads_per_kv_;
    const int head = BlockIndexY() * heads_per_kv_ + row % heads_per_kv_;
    return (static_cast<size_t>(token) * static_cast<size_t>(args_.num_heads) + static_cast<size_t>(head)) *
           static_cast<size_t>(args_.cache.head_dim);
  }
  // Row `in_warp` of the warp's 16; beyond the last row it is the last one once more.
  ENGINE_DEVICE int OfWarp(int in_warp) const { return Exists(in_warp) ? InTile(in_warp) : last(); }
  ENGINE_DEVICE bool Exists(int in_warp) const { return InTile(in_warp) <= last(); }

 private:
  ENGINE_DEVICE int InTile(int in_warp) const { return first() + ThreadIndex() / 32 * kWarpRows + in_warp; }

  const ManyAttentionArgs& args_;
  ManyAttentionTile tile_;
  int heads_per_kv_;
};

// One query row, as the four lanes know it that share it.
struct QueryRow {
  int position;
  float factor;  // scores = sums of products · factor, a power of two
  float max;     // of the scores so far; −∞: none
  float total;   // of the lane's own weights
};

// The queries of a warp as left operands.
template <int kDim>
using Queries = uint32_t[kDim / 16][4];

// Halves of row `half` (0: g, 1: g + 8) of a warp's 16, see MultiplyTiles. The largest magnitude becomes 2^13 … 2^14,
// as in PrepareKernel.
template <int kDim>
ENGINE_DEVICE void LoadQuery(Queries<kDim>& queries, QueryRow& row, int half, const float* q,
                             const ManyAttentionArgs& args) {
  const float scale = Multiply(args.scale, 1.44269504f);
  float values[kDim / 8][2];
  uint32_t largest = 0;
  ENGINE_UNROLL
  for (int n = 0; n < kDim / 8; n++) {
    ENGINE_UNROLL
    for (int i = 0; i < 2; i++) {
      const int d = 8 * n + ThreadIndex() % 4 * 2 + i;
      values[n][i] = d < args.cache.head_dim ? Multiply(q[d], scale) : 0.0f;
      const uint32_t magnitude = BitsOf(values[n][i]) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  ENGINE_UNROLL
  for (int mask = 1; mask < 4; mask *= 2) {
    const uint32_t other = ShuffleXor(largest, mask);
    largest = other > largest ? other : largest;
  }
  const bool finite = largest < kInfinityBits;
  const bool usable = finite && largest >= BitsOf(0x1p-100f);
  const uint32_t exponent = largest >> 23;  // plus 127
  const float inverse = usable ? FloatOf((127 + 13 + 127 - exponent) << 23) : 0.0f;
  row.factor = !finite ? NotANumber() : usable ? FloatOf((exponent - 13) << 23) : 1.0f;
  ENGINE_UNROLL
  for (int n = 0; n < kDim / 8; n++) {
    queries[n / 2][half + n % 2 * 2] = HalvesOf(Multiply(values[n][0], inverse), Multiply(values[n][1], inverse));
  }
}

// A block: a tile and a KV head. Blocks of a KV head are neighbours, so that its keys and values are still in the L2
// cache, and begin with those that have most to do.
template <KvDType kDType, int kDim>
ENGINE_KERNEL(kThreads, kBlocks<kDim>)
AttentionManyKernel(ManyAttentionArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  using Stages = KvStages<kDType, kDim, kThreads>;
  constexpr int kPositions = Stages::kPositions;
  constexpr bool kCodes = Stages::kCodes;
  const TileRows tile(args);
  if (tile.last() < tile.first()) return;
  Stages stages(*SharedMemory<typename Stages::Shared>(), args.cache, BlockIndexY(),
                args.block_tables + static_cast<size_t>(tile.sequence()) * static_cast<size_t>(args.max_blocks),
                FirstVisible(args, tile.position(tile.first())), tile.position(tile.last()) + 1);

  const int lane = ThreadIndex() % 32;
  // All rows of the warp see positions up to the lowest one's, and none before the first that the highest one sees.
  const int all_see_end = tile.position(tile.OfWarp(0)) + 1;
  const int all_see_begin = FirstVisible(args, tile.position(tile.OfWarp(kWarpRows - 1)));
  QueryRow rows[2];
  Queries<kDim> queries;
  ENGINE_UNROLL
  for (int half = 0; half < 2; half++) {
    const int row = tile.OfWarp(lane / 4 + 8 * half);
    rows[half] = {.position = tile.position(row), .factor = 0.0f, .max = -Infinity(), .total = 0.0f};
    LoadQuery<kDim>(queries, rows[half], half, args.q + tile.Place(row), args);
  }
  const auto visible = static_cast<uint32_t>(args.window > 0 ? args.window : 0x7fffffff);  // positions of a row

  float outputs[kDim / 8][4] = {};
  ENGINE_NO_UNROLL
  for (int chunk = stages.first_chunk(); chunk < stages.end_chunk(); chunk++) {
    stages.Enter(chunk);
    const auto& halves = stages.chunk(chunk);
    const auto& scales = stages.scales(chunk);

    // Sums of products, scores[n] of positions 8n … 8n + 7.
    float scores[kPositions / 8][4] = {};
    const uint8_t* keys = halves.keys[lane / 8 % 2][lane / 16 * 8 + lane % 8];
    ENGINE_UNROLL
    for (int k = 0; k < kDim / 16; k++) {
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n += 2) {
        uint32_t b[4];
        LoadMatrices(b, keys + (2 * k * kPositions + 8 * n) * 16);
        MultiplyTiles(scores[n], queries[k], b[0], b[1]);
        MultiplyTiles(scores[n + 1], queries[k], b[2], b[3]);
      }
    }
    const int own_column = lane % 4 * 2;
    if constexpr (kCodes) {
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n++) {
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) scores[n][i] = Multiply(scores[n][i], scales.keys[8 * n + own_column + i % 2]);
      }
    }
    const int base = chunk * kPositions;
    if (base < all_see_begin || base + kPositions > all_see_end) {
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n++) {
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) {
          const int distance = rows[i / 2].position - (base + 8 * n + own_column + i % 2);
          if (static_cast<uint32_t>(distance) >= visible) scores[n][i] = -Infinity();
        }
      }
    }

    float before[2];  // what sums so far are multiplied with
    ENGINE_UNROLL
    for (int half = 0; half < 2; half++) {
      QueryRow& row = rows[half];
      float max = -Infinity();
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n++) {
        ENGINE_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; i++) max = Maximum(max, scores[n][i]);
      }
      ENGINE_UNROLL
      for (int mask = 1; mask < 4; mask *= 2) max = Maximum(max, ShuffleXor(max, mask));
      max = Maximum(row.max, Multiply(max, row.factor));
      const float used = max == -Infinity() ? 0.0f : max;
      before[half] = FastPowerOfTwo(Add(row.max, -used));
      row.max = max;
      row.total = Multiply(row.total, before[half]);
      const float shift = Add(kWeightBits, -used);
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n++) {
        ENGINE_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          scores[n][i] = FastPowerOfTwo(Fma(scores[n][i], row.factor, shift));
          row.total = Add(row.total, scores[n][i]);
        }
      }
    }
    stages.Receive(chunk);
    // Most chunks have no new maximum.
    if (Ballot(before[0] != 1.0f || before[1] != 1.0f) != 0) {
      ENGINE_UNROLL
      for (int n = 0; n < kDim / 8; n++) {
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) outputs[n][i] = Multiply(outputs[n][i], before[i / 2]);
      }
    }

    if constexpr (kCodes) {
      ENGINE_UNROLL
      for (int n = 0; n < kPositions / 8; n++) {
        ENGINE_UNROLL
        for (int i = 0; i < 4; i++) {
          scores[n][i] = Multiply(scores[n][i], scales.value_factors[8 * n + own_column + i % 2]);
        }
      }
    }
    const uint8_t* values = halves.values[lane % 16][lane / 16];
    ENGINE_UNROLL
    for (int k = 0; k < kPositions / 16; k++) {
      // Lanes hold the weights as the left operand wants them.
      const uint32_t weights[4] = {
          HalvesOf(scores[2 * k][0], scores[2 * k][1]), HalvesOf(scores[2 * k][2], scores[2 * k][3]),
          HalvesOf(scores[2 * k + 1][0], scores[2 * k + 1][1]), HalvesOf(scores[2 * k + 1][2], scores[2 * k + 1][3])};
      ENGINE_UNROLL
      for (int n = 0; n < kDim / 8; n += 2) {
        uint32_t b[4];
        LoadTransposedMatrices(b, values + 16 * k * sizeof halves.values[0] + 16 * n);
        MultiplyTiles(outputs[n], weights, b[0], b[1]);
        MultiplyTiles(outputs[n + 1], weights, b[2], b[3]);
      }
    }
  }

  const TileRows again(args);  // rather than kept in registers meanwhile
  ENGINE_UNROLL
  for (int half = 0; half < 2; half++) {
    float total = rows[half].total;
    ENGINE_UNROLL
    for (int mask = 1; mask < 4; mask *= 2) total = Add(total, ShuffleXor(total, mask));
    const float inverse = Divide(1.0f, total);
    const int in_warp = lane / 4 + 8 * half;
    if (!again.Exists(in_warp)) continue;
    float* out = args.out + again.Place(again.OfWarp(in_warp));
    ENGINE_UNROLL
    for (int n = 0; n < kDim / 8; n++) {
      ENGINE_UNROLL
      for (int i = 0; i < 2; i++) {
        const int d = 8 * n + lane % 4 * 2 + i;
        if (d < args.cache.head_dim) out[d] = Multiply(outputs[n][2 * half + i], inverse);
      }
    }
  }
}

// run.operator()<kDType, kDim>() for heads of at least head_dim values.
template <class Run>
auto WithKernel(const KvCache& cache, Run run) {
  const auto with_dim = [&]<KvDType kDType>() {
    return cache.head_dim <= 64    ? run.template operator()<kDType, 64>()
           : cache.head_dim <= 96  ? run.template operator()<kDType, 96>()
           : cache.head_dim <= 128 ? run.template operator()<kDType, 128>()
                                   : run.template operator()<kDType, 256>();
  };
  return cache.dtype == KvDType::kF16 ? with_dim.template operator()<KvDType::kF16>()
                                      : with_dim.template operator()<KvDType::kInt8>();
}

}  // namespace

int32_t MakeManyAttentionTiles(ManyAttentionTile* out, const int32_t* query_start, const int32_t* context_lens,
                               int32_t num_seqs, int32_t heads_per_kv) {
  int32_t count = 0;
  for (int32_t s = 0; s < num_seqs; s++) {
    const int32_t num_tokens = query_start[s + 1] - query_start[s];
    if (num_tokens < kManyTokens) continue;
    for (int32_t row = 0; row < num_tokens * heads_per_kv; row += kManyAttentionRows) {
      out[count++] = {s, query_start[s], context_lens[s] - num_tokens, num_tokens, row};
    }
  }
  const auto position = [&](const ManyAttentionTile& tile) {
    return tile.first_position + tile.first_row / heads_per_kv;
  };
  std::sort(out, out + count, [&](const ManyAttentionTile& a, const ManyAttentionTile& b) {
    if (position(a) != position(b)) return position(a) > position(b);
    return a.sequence != b.sequence ? a.sequence < b.sequence : a.first_row < b.first_row;
  });
  return count;
}

LaunchShape ShapeOfAttentionMany(const ManyAttentionArgs& args) {
  LaunchShape shape = {args.num_tiles, args.cache.num_kv_heads, kThreads, 0};
  WithKernel(args.cache, [&]<KvDType kDType, int kDim>() {
    shape.shared_bytes = static_cast<int32_t>(sizeof(typename KvStages<kDType, kDim, kThreads>::Shared));
  });
  return shape;
}

int LaunchAttentionMany(Stream stream, const ManyAttentionArgs& args) {
  return WithKernel(args.cache, [&]<KvDType kDType, int kDim>() {
    return Launch(stream, ShapeOfAttentionMany(args), &AttentionManyKernel<kDType, kDim>, args);
  });
}

}  // namespace engine::cuda
