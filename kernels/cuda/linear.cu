// Linear layers for a few rows: every weight is read once, which is all that such a product costs. The weights are the
// left operand of the matrix unit (16 rows of them by 16 columns) and up to 32 rows of activations its right one, 8 at
// a time, so that 1 to 8 rows cost the same.
//
// A block has kWarps warps, each with a ring of tiles of its own that fills asynchronously, across the rows of tiles
// that the block goes through; no warp waits for another but to add up what they have of a row. A row of tiles is cut
// along k among split_k warps, warp s taking tiles s, s + split_k, …; their sums are added in ascending order. split_k
// depends on the matrix alone, and leaves each block at least two rows of tiles at a time, since some ends need pairs.
//
// While the rings fill, blocks may prepare the rows of activations for themselves (linear_rows.cuh).
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_end.cuh"
#include "kernels/cuda/linear_rows.cuh"
#include "kernels/cuda/tile_reader.cuh"
#include "kernels/cuda/tile_ring.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = kRowThreads;
constexpr int32_t kWarps = kThreads / 32;
constexpr int32_t kMostSplits = kWarps / 2;
constexpr int32_t kRingBytes = 10 << 10;  // of a warp, at most

constexpr int32_t StagesOf(TileFormat format) { return kRingBytes / TileLayoutOf(format).tile_bytes(); }
constexpr int32_t PartialFloats(int32_t token_tiles) { return token_tiles * 4 * 32; }  // of a warp

// Where things lie in a block's shared memory, in bytes; rings of tiles come first.
struct LinearMemory {
  int32_t halves, sums, scales;  // of prepared rows
  int32_t partials, highest, barriers;
  int32_t end;
};
struct LinearNeeds {
  TileFormat format;
  PreparedRows x;
  bool prepares;
  bool finds_highest;
};
constexpr LinearMemory LinearMemoryOf(const LinearNeeds& needs, const LinearTiling& tiling) {
  constexpr auto kFloat = static_cast<int32_t>(sizeof(float));
  LinearMemory memory = {};
  int32_t end = kWarps * tiling.stages * TileLayoutOf(needs.format).tile_bytes();
  memory.halves = end;
  if (needs.prepares) end += RowHalvesBytes(needs.x);
  memory.sums = end;
  if (needs.prepares && TileLayoutOf(needs.format).has_mins) end += RoundUp(RowSumsBytes(needs.x), 16);
  memory.scales = end;
  if (needs.prepares) end += RoundUp(needs.x.num_rows * kFloat, 16);
  memory.partials = end;
  end += kWarps * PartialFloats(tiling.token_tiles) * kFloat;
  memory.highest = end;
  if (needs.finds_highest) end += tiling.row_tiles * needs.x.num_rows * static_cast<int32_t>(sizeof(Highest));
  memory.barriers = end;
  memory.end = end + kWarps * tiling.stages * static_cast<int32_t>(sizeof(uint64_t));
  return memory;
}
constexpr LinearNeeds NeedsOf(const LinearFewArgs& args) {
  return {args.parts[0].weight.format, args.x, args.source.x != nullptr, args.highest != nullptr};
}

// The tiles of a warp, one after another, as the ring fetches them.
class TileCursor {
 public:
  ENGINE_DEVICE TileCursor(const LinearFewArgs& args, int tile_bytes, int split, int split_k, int place, int stride)
      : args_(args), tile_bytes_(tile_bytes), split_(split), split_k_(split_k), place_(place), stride_(stride) {
    Begin();
  }
  // Null after the last.
  ENGINE_DEVICE const uint8_t* Next() {
    const uint8_t* const tile = next_;
    if (tile == nullptr) return nullptr;
    next_ += split_k_ * tile_bytes_;
    left_ -= split_k_;
    if (left_ <= 0) {
      place_ += stride_;
      Begin();
    }
    return tile;
  }

 private:
  ENGINE_DEVICE void Begin() {
    const RowTile tile = RowTileAt(args_, place_);
    next_ = nullptr;
    if (tile.part < 0) return;
    const TiledMatrix& weight = args_.parts[tile.part].weight;
    next_ = weight.tiles + static_cast<size_t>(tile.index) * weight.row_tile_bytes() +
            static_cast<size_t>(split_) * static_cast<size_t>(tile_bytes_);
    left_ = weight.column_tiles() * weight.planes - split_;
  }

  const LinearFewArgs& args_;
  int tile_bytes_, split_, split_k_;
  int place_, stride_;
  const uint8_t* next_;
  int left_ = 0;  // tiles from next_ to the end of the row
};

// acc[token tile] += tile · activations from column `k` on, a multiple of the tile's columns.
template <TileFormat kFormat, int kTokenTiles>
ENGINE_DEVICE void MultiplyTile(float (&acc)[kTokenTiles][4], const uint8_t* tile, const ActivationRows& x, int k,
                                int lane, const RowFactors (&factors)[2]) {
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  TileRowFactors<kFormat> rows[2];
  rows[0].Load(tile, lane / 4, factors[0]);
  rows[1].Load(tile, lane / 4 + 8, factors[1]);
  const int chunk = k / kChunkColumns;
  const int group = k / 16;

  ENGINE_UNROLL
  for (int quad = 0; quad < kLayout.columns / 64; quad++) {
    uint32_t a[4][4];
    ReadCodes<kFormat>(a, tile, quad, lane);
    ENGINE_UNROLL
    for (int pair = 0; pair < 2; pair++) {
      const int column = 64 * quad + 32 * pair;  // of the tile
      ENGINE_UNROLL
      for (int t = 0; t < kTokenTiles; t++) {
        if (t * kTokenTile >= x.num_rows) break;
        float sums[2][4] = {};
        ENGINE_NO_UNROLL
        for (int part = 0; part < x.parts; part++) {
          const Words4 b = x.Operands(part, t, chunk + column / kChunkColumns, lane);
          if constexpr (kLayout.factors == Factors::kNone) {
            MultiplyTiles(acc[t], a[2 * pair], b.x, b.y);
            MultiplyTiles(acc[t], a[2 * pair + 1], b.z, b.w);
          } else {
            MultiplyTiles(sums[0], a[2 * pair], b.x, b.y);
            MultiplyTiles(sums[kLayout.group == 16 ? 1 : 0], a[2 * pair + 1], b.z, b.w);
          }
        }
        if constexpr (kLayout.factors != Factors::kNone) {
          constexpr int kGroups = kLayout.group == 16 ? 2 : 1;
          ENGINE_UNROLL
          for (int g = 0; g < kGroups; g++) {
            ENGINE_UNROLL
            for (int i = 0; i < 4; i++) acc[t][i] = Fma(rows[i / 2].scale(column + 16 * g), sums[g][i], acc[t][i]);
            if constexpr (kLayout.has_mins) {
              float totals[2];
              ENGINE_UNROLL
              for (int i = 0; i < 2; i++) {
                totals[i] = x.Sum(t, group + column / 16 + g, lane % 4 * 2 + i);
                if (kGroups == 1) totals[i] = Add(totals[i], x.Sum(t, group + column / 16 + 1, lane % 4 * 2 + i));
              }
              ENGINE_UNROLL
              for (int i = 0; i < 4; i++) {
                acc[t][i] = Fma(-rows[i / 2].min(column + 16 * g), totals[i % 2], acc[t][i]);
              }
            }
          }
        }
      }
    }
  }
}

template <TileFormat kFormat, int kTokenTiles>
ENGINE_KERNEL(kThreads, 2)
LinearKernel(LinearFewArgs args, LinearTiling tiling) {
  LetNextLaunchBegin();
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  constexpr int kTileBytes = kLayout.tile_bytes();
  const LinearMemory memory = LinearMemoryOf(NeedsOf(args), tiling);
  uint8_t* const shared = SharedMemory<uint8_t>();
  float* const partials = reinterpret_cast<float*>(shared + memory.partials);
  uint64_t* const barriers = reinterpret_cast<uint64_t*>(shared + memory.barriers);

  const int warp = ThreadIndex() / 32;
  const int lane = ThreadIndex() % 32;
  const int split = warp % tiling.split_k;
  const int slot = warp / tiling.split_k;             // which of the block's rows of tiles
  const int stride = NumBlocks() * tiling.row_tiles;  // rows of tiles between two turns of the block
  const int begin = BlockIndex() * tiling.row_tiles;

  TileCursor cursor(args, kTileBytes, split, tiling.split_k, begin + slot, stride);
  TileRing<kTileBytes, StagesOf(kFormat)> ring(shared + warp * tiling.stages * kTileBytes,
                                               barriers + warp * tiling.stages, tiling.stages, lane);
  for (int s = 0; s < tiling.stages; s++) ring.Fetch(cursor.Next());
  WaitForEarlierLaunches();

  const ActivationRows rows =
      args.source.x == nullptr
          ? RowsOf(args.x)
          : PrepareRows(args.source, args.x, reinterpret_cast<uint16_t*>(shared + memory.halves),
                        kLayout.has_mins ? reinterpret_cast<float*>(shared + memory.sums) : nullptr,
                        reinterpret_cast<float*>(shared + memory.scales));
  BlockProducts products(args, tiling, partials, PartialFloats(kTokenTiles), rows.scales,
                         reinterpret_cast<Highest*>(shared + memory.highest));

  for (int first = begin; first < tiling.all_row_tiles; first += stride) {
    const RowTile row_tile = RowTileAt(args, first + slot);
    float acc[kTokenTiles][4] = {};
    if (row_tile.part >= 0) {
      const TiledMatrix& weight = args.parts[row_tile.part].weight;
      const RowFactors* all = weight.factors + row_tile.index * kTileRows;
      const RowFactors factors[2] = {all[lane / 4], all[lane / 4 + 8]};
      const int column_tiles = weight.column_tiles();
      for (int tile = split; tile < column_tiles * weight.planes; tile += tiling.split_k) {
        const int column_tile = tile < column_tiles ? tile : tile - column_tiles;
        MultiplyTile<kFormat, kTokenTiles>(acc, ring.Front(), rows, column_tile * kLayout.columns, lane, factors);
        ring.Drop();
        ring.Fetch(cursor.Next());
      }
    }

    ENGINE_UNROLL
    for (int i = 0; i < 4 * kTokenTiles; i++) {
      partials[warp * PartialFloats(kTokenTiles) + i * 32 + lane] = acc[i / 4][i % 4];
    }
    SyncThreads();
    products.Finish(first);
    SyncThreads();
  }
  ring.End();
  products.FinishHighest();
}

template <TileFormat kFormat>
int LaunchOfFormat(Stream stream, const LaunchShape& shape, const LinearFewArgs& args, const LinearTiling& tiling) {
  if (tiling.token_tiles == 1) return Launch(stream, shape, &LinearKernel<kFormat, 1>, args, tiling);
  if (tiling.token_tiles == 2) return Launch(stream, shape, &LinearKernel<kFormat, 2>, args, tiling);
  return Launch(stream, shape, &LinearKernel<kFormat, 4>, args, tiling);
}

// Where launches overlap, blocks of the next one must find room beside those of this one.
constexpr bool LaunchesOverlap(const DeviceLimits& limits) { return limits.compute_capability >= 90; }
// What a block may ask for, beside its shared variables: alone, and if two of them, or of two launches, shall share a
// multiprocessor.
constexpr int32_t BytesOfOne(const DeviceLimits& limits) { return limits.shared_block_bytes - kSharedVariableBytes; }
constexpr int32_t BytesOfTwo(const DeviceLimits& limits) {
  constexpr int32_t kReserved = 1024;  // bytes that each block takes besides
  const int32_t half = limits.shared_multiprocessor_bytes / 2 - kReserved - kSharedVariableBytes;
  return half < BytesOfOne(limits) ? half : BytesOfOne(limits);
}

LinearTiling TilingOf(const DeviceLimits& limits, const LinearNeeds& needs, int32_t all_row_tiles) {
  const int32_t column_tiles = needs.x.columns / TileLayoutOf(needs.format).columns;
  const int32_t token_tiles = needs.x.row_tiles();
  int32_t split_k = kMostSplits;
  while (split_k > column_tiles) split_k /= 2;
  LinearTiling tiling = {.split_k = split_k,
                         .row_tiles = kWarps / split_k,
                         .stages = StagesOf(needs.format),
                         .token_tiles = token_tiles > 2 ? 4 : token_tiles,
                         .all_row_tiles = all_row_tiles};
  // Long rings or two blocks: two blocks if both cannot be.
  LinearTiling shorter = tiling;
  shorter.stages = kFewestStages;
  const int32_t most = BytesOfTwo(limits);
  const bool fits = LinearMemoryOf(needs, tiling).end <= most;
  const bool fits_shorter = LinearMemoryOf(needs, shorter).end <= most;
  const bool fits_alone = LinearMemoryOf(needs, tiling).end <= BytesOfOne(limits);
  return fits || (fits_alone && !fits_shorter) ? tiling : shorter;
}

}  // namespace

LinearTiling LinearTilingOf(const DeviceLimits& limits, const LinearFewArgs& args) {
  return TilingOf(limits, NeedsOf(args), NumRowTiles(args));
}

LaunchShape ShapeOfLinear(const DeviceLimits& limits, const LinearFewArgs& args) {
  const LinearTiling tiling = LinearTilingOf(limits, args);
  const int32_t shared = LinearMemoryOf(NeedsOf(args), tiling).end;
  const int32_t resident = shared <= BytesOfTwo(limits) ? 2 : 1;
  const int32_t turns = CeilDivide(tiling.all_row_tiles, tiling.row_tiles);
  const int32_t blocks = limits.num_multiprocessors * resident;
  return {turns < blocks ? turns : blocks, 1, kThreads, shared};
}

int LaunchLinear(Stream stream, const DeviceLimits& limits, const LinearFewArgs& args) {
  const LaunchShape shape = ShapeOfLinear(limits, args);
  const LinearTiling tiling = LinearTilingOf(limits, args);
  return WithTileFormat(args.parts[0].weight.format,
                        [&]<TileFormat kFormat>() { return LaunchOfFormat<kFormat>(stream, shape, args, tiling); });
}

bool CanPrepareInBlocks(const DeviceLimits& limits, const PreparedRows& x) {
  // Every block reads all rows from the second-level cache: 64 KB take it about half a microsecond, while rings fill.
  constexpr int64_t kMostValues = 16 << 10;
  if (x.num_rows > kMaxLinearRows || int64_t{x.num_rows} * x.columns > kMostValues) return false;
  const int32_t most = LaunchesOverlap(limits) ? BytesOfTwo(limits) : BytesOfOne(limits);
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    const LinearNeeds needs = {static_cast<TileFormat>(f), x, true, true};
    if (LinearMemoryOf(needs, TilingOf(limits, needs, 0)).end > most) return false;
  }
  return true;
}

bool CanEndWithHeads(const HeadRotation& rotation, const KvCache& cache) {
  const bool padded = KvRowBytes(cache.dtype, cache.head_dim) != cache.head_dim * KvValueBytes(cache.dtype);
  if (cache.dtype == KvDType::kInt8 || padded) return false;
  if (!RotatesHalves(rotation)) return true;
  return 2 * rotation.num_pairs == cache.head_dim && cache.head_dim % (2 * kTileRows) == 0;
}

}  // namespace engine::cuda
