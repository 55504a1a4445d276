// Causal attention over blocks of keys and values, with the softmax done chunk by chunk (FlashAttention, arXiv
// 2205.14135), the chunks of a long context in blocks of their own (Flash-Decoding). For one query row, a (token, head)
// pair:
//   * chunk c holds positions 256 c … 256 c + 255, of which the row sees some (causal, window); each thread has one;
//   * scores s = (q · k) · scale · log2 e, the product a sum over ascending dimensions by fused multiply-add, times the
//   key's
//     scale if it has 8 bits; m = max s, weights e = 2^(s − m), l = Σ e by a fixed tree;
//   * o = Σ e · v: positions are cut into equal parts, as many as head_dim leaves threads for, summed in ascending
//   order,
//     then the parts in theirs;
//   * chunks are joined in ascending order, both sides scaled by 2^(own maximum − joint maximum); out = o / l.
// None of this depends on other rows, nor on whether chunks share a block (Join does the same in both).
#include "kernels/cuda/kv_cache.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = kAttentionChunk;  // a position each
constexpr int32_t kWarps = kThreads / 32;
constexpr int32_t kRows = kAttentionRows;
constexpr int kValueLoads = 8;  // positions whose values are under way together

// Threads that share a position's values, a power of two, one dimension each.
ENGINE_DEVICE constexpr int ValueThreads(int head_dim) {
  int threads = 32;
  while (threads < head_dim) threads *= 2;
  return threads;
}

// Heads of a KV head that share a tile, and how many tiles they need.
ENGINE_DEVICE constexpr int HeadsPerTile(int heads_per_kv) { return heads_per_kv < kRows ? heads_per_kv : kRows; }

// What is known of a row after some chunks; o is kept elsewhere.
struct RowSum {
  float max;    // −∞: nothing yet
  float total;  // Σ e
};

// Factors for the weighted values of both sides when `next` follows `sum`; `sum` becomes that of both.
struct JoinFactors {
  float before, next;
};
ENGINE_DEVICE JoinFactors Join(RowSum& sum, const RowSum& next) {
  const float max = sum.max < next.max ? next.max : sum.max;
  const JoinFactors factors = {PowerOfTwo(Add(sum.max, -max)), PowerOfTwo(Add(next.max, -max))};
  sum = {max, Fma(sum.total, factors.before, Multiply(next.total, factors.next))};
  return factors;
}

struct Shared {
  float q[kRows][kMaxHeadDim];  // with zeros behind head_dim, as keys have
  float weights[kRows][kAttentionChunk];
  float parts[kRows][kThreads];  // [part][value thread]
  float warps[kRows][kWarps];
  RowSum chunk[kRows];
  RowSum sum[kRows];
  float value_scales[kAttentionChunk];
  const uint8_t* values[kAttentionChunk];  // of each position
};

// Reduces one value per row over the block, by a fixed tree, into shared.warps[row][0].
template <class Combine>
ENGINE_DEVICE void ReduceRows(Shared& shared, const float (&values)[kRows], int num_rows, Combine combine) {
  ENGINE_UNROLL
  for (int r = 0; r < kRows; r++) {
    if (r >= num_rows) break;
    float value = values[r];
    for (int mask = 16; mask > 0; mask /= 2) value = combine(value, ShuffleXor(value, mask));
    if (ThreadIndex() % 32 == 0) shared.warps[r][ThreadIndex() / 32] = value;
  }
  SyncThreads();
  if (ThreadIndex() < num_rows) {
    float value = shared.warps[ThreadIndex()][0];
    for (int w = 1; w < kWarps; w++) value = combine(value, shared.warps[ThreadIndex()][w]);
    shared.warps[ThreadIndex()][0] = value;
  }
  SyncThreads();
}

// A block: a tile of tokens, some heads of a KV head, and one chunk (split) or all of them.
template <KvDType kDType>
ENGINE_KERNEL(kThreads, 2)
AttentionKernel(AttentionArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  using Vector = KvVector<kDType>;
  // Loads of 16 bytes of a key that are under way together; more would not stay in registers.
  constexpr int kKeyLoads = kDType == KvDType::kInt8 ? 4 : 8;
  Shared& shared = *SharedMemory<Shared>();
  const KvCache& cache = args.cache;
  const int head_dim = cache.head_dim;
  const int heads_per_kv = args.num_heads / cache.num_kv_heads;
  const int heads_per_tile = HeadsPerTile(heads_per_kv);
  const int head_tiles = CeilDivide(heads_per_kv, heads_per_tile);
  const AttentionTile tile = args.tiles[BlockIndex() / (cache.num_kv_heads * head_tiles)];
  const int kv_head = BlockIndex() / head_tiles % cache.num_kv_heads;
  const int head_in_kv = BlockIndex() % head_tiles * heads_per_tile;
  const int num_heads = heads_per_kv - head_in_kv < heads_per_tile ? heads_per_kv - head_in_kv : heads_per_tile;
  const int first_head = kv_head * heads_per_kv + head_in_kv;
  const int num_rows = tile.num_tokens * num_heads;
  const int32_t* block_table =
      args.block_tables + static_cast<size_t>(tile.sequence) * static_cast<size_t>(args.max_blocks);
  const float scale = Multiply(args.scale, 1.44269504f);

  const auto position_of = [&](int r) { return tile.first_position + r / num_heads; };
  const auto first_visible = [&](int position) {
    return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
  };
  // Positions that any row of the tile sees.
  const int tile_begin = first_visible(tile.first_position);
  const int tile_end = tile.first_position + tile.num_tokens;
  int chunk = args.split ? BlockIndexY() : tile_begin / kAttentionChunk;
  if (args.split && ((chunk + 1) * kAttentionChunk <= tile_begin || chunk * kAttentionChunk >= tile_end)) return;
  const int end_chunk = args.split ? chunk + 1 : CeilDivide(tile_end, kAttentionChunk);

  const int padded_dim = RoundUp(head_dim, Vector::kValues);
  for (int i = ThreadIndex(); i < num_rows * padded_dim; i += kThreads) {
    const int r = i / padded_dim, d = i % padded_dim;
    const size_t row = static_cast<size_t>(tile.first_token + r / num_heads) * static_cast<size_t>(args.num_heads) +
                       static_cast<size_t>(first_head + r % num_heads);
    shared.q[r][d] = d < head_dim ? args.q[row * static_cast<size_t>(head_dim) + static_cast<size_t>(d)] : 0.0f;
  }
  if (ThreadIndex() < kRows) shared.sum[ThreadIndex()] = {-Infinity(), 0.0f};
  SyncThreads();

  const int value_threads = ValueThreads(head_dim);
  const int num_parts = kThreads / value_threads;
  const int part = ThreadIndex() / value_threads;
  const int dim = ThreadIndex() % value_threads;
  // o of row r and dimension d is kept by the thread that adds its parts, number r · value_threads + d of all threads.
  float outputs[kRows] = {};

  for (; chunk < end_chunk; chunk++) {
    const int position = chunk * kAttentionChunk + ThreadIndex();
    const bool any = position >= tile_begin && position < tile_end;
    float scores[kRows];
    for (int r = 0; r < kRows; r++) scores[r] = 0.0f;
    if (any) {
      const int block = block_table[position / cache.block_size];
      const int offset = position % cache.block_size;
      uint8_t* const keys = KvBlock(cache, cache.keys, block, kv_head);
      uint8_t* const values = KvBlock(cache, cache.values, block, kv_head);
      shared.values[ThreadIndex()] = values + ValuePlace(cache, offset);
      for (int first = 0; first < padded_dim; first += kKeyLoads * Vector::kValues) {
        Words4 words[kKeyLoads] = {};
        ENGINE_UNROLL
        for (int load = 0; load < kKeyLoads; load++) {
          const int d = first + load * Vector::kValues;
          if (d < padded_dim) words[load] = Load16(keys + KeyPlace(cache, offset, d));
        }
        ENGINE_UNROLL
        for (int load = 0; load < kKeyLoads; load++) {
          const int d = first + load * Vector::kValues;
          if (d >= padded_dim) break;
          float key[Vector::kValues];
          Vector::Unpack(key, words[load]);
          ENGINE_UNROLL
          for (int i = 0; i < Vector::kValues; i += 4) {
            ENGINE_UNROLL
            for (int r = 0; r < kRows; r++) {
              if (r >= num_rows) break;
              const Words4 q = Load16(&shared.q[r][d + i]);
              scores[r] = Fma(FloatOf(q.x), key[i], scores[r]);
              scores[r] = Fma(FloatOf(q.y), key[i + 1], scores[r]);
              scores[r] = Fma(FloatOf(q.z), key[i + 2], scores[r]);
              scores[r] = Fma(FloatOf(q.w), key[i + 3], scores[r]);
            }
          }
        }
      }
      if constexpr (kDType == KvDType::kInt8) {
        const float key_scale = *KvScale(cache, keys, offset);
        for (int r = 0; r < kRows; r++) scores[r] = Multiply(scores[r], key_scale);
        shared.value_scales[ThreadIndex()] = *KvScale(cache, values, offset);
      }
    }
    ENGINE_UNROLL
    for (int r = 0; r < kRows; r++) {
      const bool sees = any && r < num_rows && position <= position_of(r) && position >= first_visible(position_of(r));
      scores[r] = sees ? Multiply(scores[r], scale) : -Infinity();
    }

    ReduceRows(shared, scores, num_rows, [](float a, float b) { return a < b ? b : a; });
    if (ThreadIndex() < num_rows) shared.chunk[ThreadIndex()].max = shared.warps[ThreadIndex()][0];
    SyncThreads();
    ENGINE_UNROLL
    for (int r = 0; r < kRows; r++) {
      if (r >= num_rows) break;
      const float max = shared.chunk[r].max;
      scores[r] = max == -Infinity() ? 0.0f : PowerOfTwo(Add(scores[r], -max));
    }
    ReduceRows(shared, scores, num_rows, [](float a, float b) { return Add(a, b); });
    if (ThreadIndex() < num_rows) shared.chunk[ThreadIndex()].total = shared.warps[ThreadIndex()][0];
    ENGINE_UNROLL
    for (int r = 0; r < kRows; r++) {
      if (r >= num_rows) break;
      float weight = scores[r];
      if constexpr (kDType == KvDType::kInt8) {
        if (any) weight = Multiply(weight, shared.value_scales[ThreadIndex()]);
      }
      shared.weights[r][ThreadIndex()] = weight;
    }
    SyncThreads();

    // Values: each thread a dimension of the positions of its part.
    float sums[kRows] = {};
    if (dim < head_dim) {
      const int base = chunk * kAttentionChunk;
      const int part_size = kAttentionChunk / num_parts;
      const int begin = part * part_size < tile_begin - base ? tile_begin - base : part * part_size;
      const int end = (part + 1) * part_size < tile_end - base ? (part + 1) * part_size : tile_end - base;
      for (int first = begin; first < end; first += kValueLoads) {
        float values[kValueLoads];
        ENGINE_UNROLL
        for (int i = 0; i < kValueLoads; i++) {
          values[i] = first + i < end ? Vector::One(shared.values[first + i], dim) : 0.0f;
        }
        ENGINE_UNROLL
        for (int i = 0; i < kValueLoads; i++) {
          if (first + i >= end) break;
          ENGINE_UNROLL
          for (int r = 0; r < kRows; r++) {
            if (r < num_rows) sums[r] = Fma(shared.weights[r][first + i], values[i], sums[r]);
          }
        }
      }
    }
    ENGINE_UNROLL
    for (int r = 0; r < kRows; r++) {
      if (r < num_rows) shared.parts[r][ThreadIndex()] = sums[r];
    }
    SyncThreads();

    // Joins the chunk with those before it.
    ENGINE_UNROLL
    for (int turn = 0; turn < kRows; turn++) {
      const int item = turn * kThreads + ThreadIndex();
      const int r = item / value_threads;
      if (r >= num_rows) break;
      float sum = shared.parts[r][item % value_threads];
      for (int i = 1; i < num_parts; i++) sum = Add(sum, shared.parts[r][i * value_threads + item % value_threads]);
      if (args.split) {
        outputs[turn] = sum;
      } else if (shared.chunk[r].max != -Infinity()) {
        RowSum before = shared.sum[r];
        const JoinFactors factors = Join(before, shared.chunk[r]);
        outputs[turn] = Fma(outputs[turn], factors.before, Multiply(sum, factors.next));
      }
    }
    SyncThreads();
    if (ThreadIndex() < num_rows) {
      const RowSum next = shared.chunk[ThreadIndex()];
      if (args.split) {
        shared.sum[ThreadIndex()] = next;
      } else if (next.max != -Infinity()) {
        Join(shared.sum[ThreadIndex()], next);
      }
    }
    SyncThreads();
  }

  ENGINE_UNROLL
  for (int turn = 0; turn < kRows; turn++) {
    const int item = turn * kThreads + ThreadIndex();
    const int r = item / value_threads;
    const int d = item % value_threads;
    if (r >= num_rows || d >= head_dim) continue;
    const size_t row = static_cast<size_t>(tile.first_token + r / num_heads) * static_cast<size_t>(args.num_heads) +
                       static_cast<size_t>(first_head + r % num_heads);
    if (args.split) {
      float* to = args.partials + (row * static_cast<size_t>(args.num_chunks) + static_cast<size_t>(BlockIndexY())) *
                                      static_cast<size_t>(head_dim + 2);
      to[2 + d] = outputs[turn];
      if (d == 0) {
        to[0] = shared.sum[r].max;
        to[1] = shared.sum[r].total;
      }
    } else {
      args.out[row * static_cast<size_t>(head_dim) + static_cast<size_t>(d)] =
          Divide(outputs[turn], shared.sum[r].total);
    }
  }
}

constexpr int32_t kJoinThreads = 128;

// A block per tile and query head: joins the chunks that its tokens see.
ENGINE_KERNEL(kJoinThreads, 8) AttentionJoinKernel(AttentionArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const AttentionTile tile = args.tiles[BlockIndex()];
  const int head_dim = args.cache.head_dim;
  for (int t = 0; t < tile.num_tokens; t++) {
    const int position = tile.first_position + t;
    const int first = args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
    const size_t row = static_cast<size_t>(tile.first_token + t) * static_cast<size_t>(args.num_heads) +
                       static_cast<size_t>(BlockIndexY());
    for (int d = ThreadIndex(); d < head_dim; d += kJoinThreads) {
      RowSum sum = {-Infinity(), 0.0f};
      float output = 0.0f;
      for (int chunk = first / kAttentionChunk; chunk <= position / kAttentionChunk; chunk++) {
        const float* from = args.partials + (row * static_cast<size_t>(args.num_chunks) + static_cast<size_t>(chunk)) *
                                                static_cast<size_t>(head_dim + 2);
        const JoinFactors factors = Join(sum, {from[0], from[1]});
        output = Fma(output, factors.before, Multiply(from[2 + d], factors.next));
      }
      args.out[row * static_cast<size_t>(head_dim) + static_cast<size_t>(d)] = Divide(output, sum.total);
    }
  }
}

}  // namespace

int32_t MakeAttentionTiles(AttentionTile* out, const int32_t* query_start, const int32_t* context_lens,
                           int32_t num_seqs, int32_t heads_per_kv) {
  const int32_t most = heads_per_kv < kRows ? kRows / heads_per_kv : 1;
  int32_t count = 0;
  for (int32_t s = 0; s < num_seqs; s++) {
    const int32_t end = query_start[s + 1];
    for (int32_t token = query_start[s]; token < end; token += most) {
      out[count++] = {s, token, end - token < most ? end - token : most, context_lens[s] - (end - token)};
    }
  }
  return count;
}

size_t AttentionPartialFloats(int32_t num_tokens, int32_t num_heads, int32_t head_dim, int32_t num_chunks) {
  return static_cast<size_t>(num_tokens) * static_cast<size_t>(num_heads) * static_cast<size_t>(num_chunks) *
         static_cast<size_t>(head_dim + 2);
}

LaunchShape ShapeOfAttention(const AttentionArgs& args) {
  const int32_t heads_per_kv = args.num_heads / args.cache.num_kv_heads;
  const int32_t head_tiles = CeilDivide(heads_per_kv, heads_per_kv < kRows ? heads_per_kv : kRows);
  return {args.num_tiles * args.cache.num_kv_heads * head_tiles, args.split ? args.num_chunks : 1, kThreads,
          static_cast<int32_t>(sizeof(Shared))};
}

LaunchShape ShapeOfAttentionJoin(const AttentionArgs& args) {
  return {args.num_tiles, args.num_heads, kJoinThreads, 0};
}

int LaunchAttention(Stream stream, const AttentionArgs& args) {
  const auto launch = [&]<KvDType kDType>() {
    return Launch(stream, ShapeOfAttention(args), &AttentionKernel<kDType>, args);
  };
  const int error = args.cache.dtype == KvDType::kF32   ? launch.template operator()<KvDType::kF32>()
                    : args.cache.dtype == KvDType::kF16 ? launch.template operator()<KvDType::kF16>()
                                                        : launch.template operator()<KvDType::kInt8>();
  if (error != 0 || !args.split) return error;
  return Launch(stream, ShapeOfAttentionJoin(args), &AttentionJoinKernel, args);
}

}  // namespace engine::cuda
