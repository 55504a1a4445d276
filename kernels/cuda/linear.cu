// Linear layers for a few rows: every weight is read once, which is all that such a product costs. The weights are the
// left operand of the matrix unit (16 rows of them by 16 columns) and up to 32 rows of activations its right one, 8 at
// a time, so that 1 to 8 rows cost the same.
//
// A block has kWarps warps, each with a ring of tiles of its own that fills asynchronously, across the rows of tiles
// that the block goes through; no warp waits for another but to add up what they have of a row. A row of tiles is cut
// along k among split_k warps, warp s taking tiles s, s + split_k, …; their sums are added in ascending order. split_k
// depends on the matrix alone.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_output.cuh"
#include "kernels/cuda/tile_reader.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kWarps = 8;
constexpr int32_t kThreads = 32 * kWarps;
constexpr int32_t kRingBytes = 10 << 10;  // of a warp, at most

constexpr int32_t StagesOf(TileFormat format) { return kRingBytes / TileLayoutOf(format).tile_bytes(); }
constexpr int32_t PartialFloats(int32_t token_tiles) { return token_tiles * 4 * 32; }  // of a warp

// A warp's tiles, in the order in which it reads them, on their way through shared memory.
template <int kTileBytes, int kStages>
class TileRing {
 public:
  ENGINE_DEVICE TileRing(uint8_t* memory, uint64_t* barriers, int lane)
      : memory_(memory), barriers_(barriers), lane_(lane) {
    if (HasBulkCopies()) {
      if (lane == 0) {
        for (int s = 0; s < kStages; s++) BarrierInit(barriers + s);
      }
      SyncWarp();
    }
  }

  // Fetches the next tile; null if there is none.
  ENGINE_DEVICE void Fetch(const uint8_t* tile) {
    uint8_t* to = memory_ + fetched_ * kTileBytes;
    if (HasBulkCopies()) {
      if (lane_ == 0 && tile != nullptr) {
        BarrierExpect(barriers_ + fetched_, kTileBytes);
        BulkCopy(to, tile, kTileBytes, barriers_ + fetched_);
      }
    } else {
      if (tile != nullptr) {
        for (int i = lane_; i < kTileBytes / 16; i += 32) CopyAsync16(to + 16 * i, tile + 16 * i);
      }
      CommitCopies();
    }
    fetched_ = fetched_ + 1 == kStages ? 0 : fetched_ + 1;
  }

  // The oldest tile, once it is there. It stays until Drop; kStages have been fetched by now.
  ENGINE_DEVICE const uint8_t* Front() {
    if (HasBulkCopies()) {
      BarrierWait(barriers_ + front_, parity_);
    } else {
      WaitCopies<kStages - 1>();
      SyncWarp();
    }
    return memory_ + front_ * kTileBytes;
  }
  ENGINE_DEVICE void Drop() {
    SyncWarp();
    front_++;
    if (front_ == kStages) {
      front_ = 0;
      parity_ ^= 1;
    }
  }
  // Once all tiles are dropped.
  ENGINE_DEVICE void End() {
    if (!HasBulkCopies()) WaitCopies<0>();
  }

 private:
  uint8_t* memory_;
  uint64_t* barriers_;
  int lane_;
  int fetched_ = 0;
  int front_ = 0;
  uint32_t parity_ = 0;
};

// acc[token tile] += tile · activations from column `k` on.
template <TileFormat kFormat, int kTokenTiles>
ENGINE_DEVICE void MultiplyTile(float (&acc)[kTokenTiles][4], const uint8_t* tile, const PreparedRows& x, int k,
                                int lane, const RowFactors (&factors)[2]) {
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  TileRowFactors<kFormat> rows[2];
  rows[0].Load(tile, lane / 4, factors[0]);
  rows[1].Load(tile, lane / 4 + 8, factors[1]);
  const int row_tiles = x.row_tiles();
  const int part_halves = row_tiles * kTokenTile * x.columns;

  ENGINE_UNROLL
  for (int quad = 0; quad < kLayout.columns / 64; quad++) {
    uint32_t a[4][4];
    ReadCodes<kFormat>(a, tile, quad, lane);
    ENGINE_UNROLL
    for (int pair = 0; pair < 2; pair++) {
      const int column = 64 * quad + 32 * pair;  // of the tile
      ENGINE_UNROLL
      for (int t = 0; t < kTokenTiles; t++) {
        if (t >= row_tiles) break;
        const uint16_t* halves = x.halves + (t * x.columns + k + column) * kTokenTile + lane * 8;
        float sums[2][4] = {};
        ENGINE_NO_UNROLL
        for (int part = 0; part < x.parts; part++, halves += part_halves) {
          const Words4 b = Load16(halves);
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
              const float* totals = x.sums + (t * (x.columns / 16) + (k + column) / 16 + g) * kTokenTile + lane % 4 * 2;
              ENGINE_UNROLL
              for (int i = 0; i < 4; i++) {
                float total = totals[i % 2];
                if (kGroups == 1) total = Add(total, totals[kTokenTile + i % 2]);
                acc[t][i] = Fma(-rows[i / 2].min(column + 16 * g), total, acc[t][i]);
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
  constexpr int kStages = StagesOf(kFormat);
  static_assert(kTileBytes % 16 == 0 && kStages >= 2);
  uint8_t* const rings = SharedMemory<uint8_t>();
  float* const partials = reinterpret_cast<float*>(rings + kWarps * kStages * kTileBytes);
  uint64_t* const barriers = reinterpret_cast<uint64_t*>(partials + kWarps * PartialFloats(kTokenTiles));

  const int warp = ThreadIndex() / 32;
  const int lane = ThreadIndex() % 32;
  const int split = warp % tiling.split_k;
  const int slot = warp / tiling.split_k;  // which of the block's rows of tiles
  const LinearPart& part = args.parts[0];
  const TiledMatrix& weight = part.weight;
  const LinearArgs store = {part.out, args.x, weight, part.bias, args.end == LinearEnd::kAdd};
  const int row_tiles = weight.row_tiles();
  const int column_tiles = weight.column_tiles();
  const int num_tiles = column_tiles * weight.planes;  // of a row
  const int stride = NumBlocks() * tiling.row_tiles;   // rows of tiles between two turns of the block

  // Where the ring has come to.
  int fetch_row = BlockIndex() * tiling.row_tiles + slot;
  int fetch_tile = split;
  const auto fetch = [&](auto& ring) {
    const uint8_t* tile = nullptr;
    if (fetch_row < row_tiles && fetch_tile < num_tiles) {
      tile = weight.tiles + static_cast<size_t>(fetch_row) * weight.row_tile_bytes() +
             static_cast<size_t>(fetch_tile) * kTileBytes;
      fetch_tile += tiling.split_k;
      if (fetch_tile >= num_tiles) {
        fetch_tile = split;
        fetch_row += stride;
      }
    }
    ring.Fetch(tile);
  };

  TileRing<kTileBytes, kStages> ring(rings + warp * kStages * kTileBytes, barriers + warp * kStages, lane);
  for (int s = 0; s < kStages; s++) fetch(ring);
  WaitForEarlierLaunches();

  for (int first = BlockIndex() * tiling.row_tiles; first < row_tiles; first += stride) {
    const int row_tile = first + slot;
    float acc[kTokenTiles][4] = {};
    if (row_tile < row_tiles) {
      const RowFactors* all = weight.factors + row_tile * kTileRows;
      const RowFactors factors[2] = {all[lane / 4], all[lane / 4 + 8]};
      for (int tile = split; tile < num_tiles; tile += tiling.split_k) {
        const int column_tile = tile < column_tiles ? tile : tile - column_tiles;
        MultiplyTile<kFormat, kTokenTiles>(acc, ring.Front(), args.x, column_tile * kLayout.columns, lane, factors);
        ring.Drop();
        fetch(ring);
      }
    }

    ENGINE_UNROLL
    for (int i = 0; i < 4 * kTokenTiles; i++) {
      partials[warp * PartialFloats(kTokenTiles) + i * 32 + lane] = acc[i / 4][i % 4];
    }
    SyncThreads();
    constexpr int kTokens = kTokenTiles * kTokenTile;
    for (int item = ThreadIndex(); item < tiling.row_tiles * kTokens * kTileRows; item += kThreads) {
      const int in_tile = item % kTileRows;
      const int token = item / kTileRows % kTokens;
      const int from = item / (kTileRows * kTokens);
      const int row = (first + from) * kTileRows + in_tile;
      if (row >= weight.rows || token >= args.x.num_rows) continue;
      // Where the matrix unit left it.
      const int value = token / 8 * 4 + in_tile / 8 * 2 + token % 2;
      const int place = value * 32 + in_tile % 8 * 4 + token % 8 / 2;
      float sum = 0.0f;
      for (int s = 0; s < tiling.split_k; s++) {
        sum = Add(sum, partials[(from * tiling.split_k + s) * PartialFloats(kTokenTiles) + place]);
      }
      if constexpr (kLayout.factors == Factors::kNone) sum = Multiply(sum, weight.factors[row].scale);
      StoreLinear(store, row, token, sum);
    }
    SyncThreads();
  }
  ring.End();
}

template <TileFormat kFormat>
int LaunchOfFormat(Stream stream, const LaunchShape& shape, const LinearFewArgs& args, const LinearTiling& tiling) {
  if (tiling.token_tiles == 1) return Launch(stream, shape, &LinearKernel<kFormat, 1>, args, tiling);
  if (tiling.token_tiles == 2) return Launch(stream, shape, &LinearKernel<kFormat, 2>, args, tiling);
  return Launch(stream, shape, &LinearKernel<kFormat, 4>, args, tiling);
}

}  // namespace

LinearTiling LinearTilingOf(const LinearFewArgs& args) {
  const TiledMatrix& weight = args.parts[0].weight;
  const int32_t num_tiles = weight.column_tiles() * weight.planes;
  int32_t split_k = kWarps;
  while (split_k > num_tiles) split_k /= 2;
  const int32_t tiles = args.x.row_tiles();
  return {split_k, kWarps / split_k, StagesOf(weight.format), tiles > 2 ? 4 : tiles};
}

LaunchShape ShapeOfLinear(const DeviceLimits& limits, const LinearFewArgs& args) {
  const TiledMatrix& weight = args.parts[0].weight;
  const LinearTiling tiling = LinearTilingOf(args);
  const int32_t ring =
      tiling.stages * (TileLayoutOf(weight.format).tile_bytes() + static_cast<int32_t>(sizeof(uint64_t)));
  const int32_t shared = kWarps * (ring + PartialFloats(tiling.token_tiles) * static_cast<int32_t>(sizeof(float)));
  constexpr int32_t kReserved = 1024;  // bytes of shared memory that each block takes besides
  const int32_t by_memory = limits.shared_multiprocessor_bytes / (shared + kReserved);
  const int32_t resident = by_memory < 1 ? 1 : by_memory > 2 ? 2 : by_memory;
  const int32_t turns = CeilDivide(weight.row_tiles(), tiling.row_tiles);
  const int32_t blocks = limits.num_multiprocessors * resident;
  return {turns < blocks ? turns : blocks, 1, kThreads, shared};
}

int LaunchLinear(Stream stream, const DeviceLimits& limits, const LinearFewArgs& args) {
  const LaunchShape shape = ShapeOfLinear(limits, args);
  const LinearTiling tiling = LinearTilingOf(args);
  return WithTileFormat(args.parts[0].weight.format,
                        [&]<TileFormat kFormat>() { return LaunchOfFormat<kFormat>(stream, shape, args, tiling); });
}

}  // namespace engine::cuda
