// Linear layers for the rows of a batch of sequences: weights stay in their tiles until a block has them, where they
// become halves in registers (scaled, so that accumulators need nothing but the product), each read once per 64 or 128
// rows of activations. Weights, products and their order are those of LaunchHalve and LaunchLinearMany, whatever the
// number of rows.
//
// A block has 64 rows of weights; its warps lie 4 by 1 before 64 rows of activations, or 2 by 2 before 128. A warp has
// 8 tiles of activations in either case, which a fragment of weights serves before the next one is made. Stages of 64
// columns hold codes and activations; the factors of a tile serve 4 such stages, and lie beside them.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_output.cuh"
#include "kernels/cuda/tile_reader.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kWarps = 4;
constexpr int32_t kThreads = 32 * kWarps;
constexpr int32_t kBlockTiles = 4;      // of weights
constexpr int32_t kWarpTokenTiles = 8;  // of activations
constexpr int32_t kStages = 4;
constexpr int32_t kStageColumns = 64;
constexpr int32_t kTokenTileBytes = kTokenTile * kStageColumns * 2;

// Token tiles of a block whose warps have this many tiles of weights each.
constexpr int32_t TokenTilesOf(int32_t warp_tiles) { return warp_tiles * kWarpTokenTiles; }
constexpr int32_t CodeBytesOf(TileFormat format) { return kTileRows * kStageColumns * TileLayoutOf(format).bits / 8; }
// Of a tile.
constexpr int32_t FactorBytesOf(TileFormat format) {
  return TileLayoutOf(format).tile_bytes() - TileLayoutOf(format).code_bytes();
}
constexpr int32_t StageBytesOf(TileFormat format, int32_t token_tiles) {
  return kBlockTiles * CodeBytesOf(format) + token_tiles * kTokenTileBytes;
}
constexpr int32_t SharedBytesOf(TileFormat format, int32_t token_tiles) {
  return kStages * StageBytesOf(format, token_tiles) + kBlockTiles * FactorBytesOf(format);
}

template <TileFormat kFormat, int kWarpTiles>
ENGINE_KERNEL(kThreads, 2)
LinearBatchKernel(LinearArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  constexpr int kQuads = kLayout.columns / kStageColumns;  // stages of a tile
  constexpr int kCodeBytes = CodeBytesOf(kFormat);
  constexpr int kFactorBytes = FactorBytesOf(kFormat);
  constexpr int kTokenTiles = TokenTilesOf(kWarpTiles);
  constexpr int kStageBytes = StageBytesOf(kFormat, kTokenTiles);
  static_assert(kCodeBytes % 16 == 0 && kFactorBytes % 16 == 0);
  // The factors of a tile are in registers before those of the next one come.
  static_assert(kFactorBytes == 0 || kStages - 1 < kQuads);
  uint8_t* const stages = SharedMemory<uint8_t>();
  uint8_t* const shared_factors = stages + kStages * kStageBytes;

  const int lane = ThreadIndex() % 32;
  const int warp = ThreadIndex() / 32;
  const TiledMatrix& weight = args.weight;
  const PreparedRows& x = args.x;
  const int first_row_tile = BlockIndex() * kBlockTiles;
  const int first_token_tile = BlockIndexY() * kTokenTiles;
  const int left_row_tiles = weight.row_tiles() - first_row_tile;
  const int left_token_tiles = x.row_tiles() - first_token_tile;
  const int num_row_tiles = left_row_tiles < kBlockTiles ? left_row_tiles : kBlockTiles;
  const int num_token_tiles = left_token_tiles < kTokenTiles ? left_token_tiles : kTokenTiles;
  const int column_tiles = weight.column_tiles();
  const int per_part = column_tiles * weight.planes;
  const int num_tiles = per_part * x.parts;
  const size_t part_halves = static_cast<size_t>(x.row_tiles() * kTokenTile) * static_cast<size_t>(x.columns);
  const uint8_t* const own_tiles = weight.tiles + static_cast<size_t>(first_row_tile) * weight.row_tile_bytes();

  // Stage `step` of the sum: planes of the weights for each part of the activations.
  const auto fetch = [&](int step) {
    const int sum_tile = step / kQuads;
    if (sum_tile < num_tiles) {
      const int quad = step % kQuads;
      const int part = sum_tile / per_part;
      const int tile = sum_tile % per_part;
      const uint8_t* const tiles = own_tiles + static_cast<size_t>(tile) * kLayout.tile_bytes();
      uint8_t* const codes = stages + step % kStages * kStageBytes;
      constexpr int kCodePieces = kCodeBytes / 16;
      for (int i = ThreadIndex(); i < num_row_tiles * kCodePieces; i += kThreads) {
        CopyAsync16(codes + 16 * i, tiles + static_cast<size_t>(i / kCodePieces) * weight.row_tile_bytes() +
                                        quad * kCodeBytes + 16 * (i % kCodePieces));
      }
      if constexpr (kFactorBytes > 0) {
        if (quad == 0) {
          constexpr int kPieces = kFactorBytes / 16;
          for (int i = ThreadIndex(); i < num_row_tiles * kPieces; i += kThreads) {
            CopyAsync16(shared_factors + 16 * i, tiles + static_cast<size_t>(i / kPieces) * weight.row_tile_bytes() +
                                                     kLayout.code_bytes() + 16 * (i % kPieces));
          }
        }
      }
      uint8_t* const activations = codes + kBlockTiles * kCodeBytes;
      const int column = tile % column_tiles * kLayout.columns + quad * kStageColumns;
      const uint16_t* const halves =
          x.halves + static_cast<size_t>(part) * part_halves +
          (static_cast<size_t>(first_token_tile) * static_cast<size_t>(x.columns) + static_cast<size_t>(column)) *
              kTokenTile;
      constexpr int kPieces = kTokenTileBytes / 16;
      for (int i = ThreadIndex(); i < num_token_tiles * kPieces; i += kThreads) {
        CopyAsync16(activations + 16 * i,
                    halves + static_cast<size_t>(i / kPieces) * static_cast<size_t>(x.columns * kTokenTile) +
                        8 * (i % kPieces));
      }
    }
    CommitCopies();
  };

  const int own_row_tile = warp % (kWarps / kWarpTiles) * kWarpTiles;
  const int own_token_tile = warp / (kWarps / kWarpTiles) * kWarpTokenTiles;
  const bool idle = own_row_tile >= num_row_tiles || own_token_tile >= num_token_tiles;
  float inverse[kWarpTiles][2];  // of the scales of the rows
  RowFactors factors[kWarpTiles][2];
  ENGINE_UNROLL
  for (int i = 0; i < 2 * kWarpTiles; i++) {
    if (kLayout.factors == Factors::kNone || own_row_tile + i / 2 >= num_row_tiles) break;
    const int row = (first_row_tile + own_row_tile + i / 2) * kTileRows + lane / 4 + i % 2 * 8;
    factors[i / 2][i % 2] = weight.factors[row];
    inverse[i / 2][i % 2] = 1.0f / weight.factors[row].scale;
  }

  float acc[kWarpTiles][kWarpTokenTiles][4] = {};
  for (int step = 0; step < kStages - 1; step++) fetch(step);
  for (int tile = 0; tile < num_tiles; tile++) {
    TileRowFactors<kFormat> rows[kWarpTiles][2];
    ENGINE_UNROLL
    for (int quad = 0; quad < kQuads; quad++) {
      const int step = tile * kQuads + quad;
      WaitCopies<kStages - 2>();
      SyncThreads();  // what everyone has fetched is there, and the stage before this one has been read
      fetch(step + kStages - 1);
      if (idle) continue;
      const uint8_t* const codes = stages + step % kStages * kStageBytes;
      const uint8_t* const activations = codes + kBlockTiles * kCodeBytes + own_token_tile * kTokenTileBytes;

      uint32_t a[kWarpTiles][4][4];
      ENGINE_UNROLL
      for (int w = 0; w < kWarpTiles; w++) {
        if (own_row_tile + w >= num_row_tiles) break;
        if (kFactorBytes > 0 && quad == 0) {
          const uint8_t* const behind = shared_factors + (own_row_tile + w) * kFactorBytes;
          rows[w][0].LoadBehindCodes(behind, lane / 4, factors[w][0]);
          rows[w][1].LoadBehindCodes(behind, lane / 4 + 8, factors[w][1]);
        }
        ReadCodes<kFormat>(a[w], codes + (own_row_tile + w) * kCodeBytes, 0, lane);
        ENGINE_UNROLL
        for (int s = 0; s < 4; s++) HalveCodes(a[w][s], rows[w], inverse[w], quad * kStageColumns + 16 * s);
      }
      ENGINE_UNROLL
      for (int pair = 0; pair < 2; pair++) {
        ENGINE_UNROLL
        for (int t = 0; t < kWarpTokenTiles; t++) {
          if (own_token_tile + t >= num_token_tiles) break;
          const Words4 b = Load16(activations + t * kTokenTileBytes + (pair * 32 + lane) * 16);
          ENGINE_UNROLL
          for (int w = 0; w < kWarpTiles; w++) {
            if (own_row_tile + w >= num_row_tiles) break;
            MultiplyTiles(acc[w][t], a[w][2 * pair], b.x, b.y);
            MultiplyTiles(acc[w][t], a[w][2 * pair + 1], b.z, b.w);
          }
        }
      }
    }
  }
  WaitCopies<0>();

  ENGINE_UNROLL
  for (int w = 0; w < kWarpTiles; w++) {
    ENGINE_UNROLL
    for (int t = 0; t < kWarpTokenTiles; t++) {
      ENGINE_UNROLL
      for (int i = 0; i < 4; i++) {
        const int row = (first_row_tile + own_row_tile + w) * kTileRows + lane / 4 + i / 2 * 8;
        const int token = (first_token_tile + own_token_tile + t) * kTokenTile + lane % 4 * 2 + i % 2;
        if (row >= weight.rows || token >= x.num_rows) continue;
        StoreLinear(args, row, token, Multiply(acc[w][t][i], weight.factors[row].scale));
      }
    }
  }
}

// Tiles of weights per warp.
constexpr int32_t WarpTilesOf(int32_t num_rows) { return num_rows <= TokenTilesOf(1) * kTokenTile ? 1 : 2; }

}  // namespace

LaunchShape ShapeOfLinearBatch(const LinearArgs& args) {
  const int32_t token_tiles = TokenTilesOf(WarpTilesOf(args.x.num_rows));
  return {CeilDivide(args.weight.row_tiles(), kBlockTiles), CeilDivide(args.x.row_tiles(), token_tiles), kThreads,
          SharedBytesOf(args.weight.format, token_tiles)};
}

int LaunchLinearBatch(Stream stream, const LinearArgs& args) {
  const LaunchShape shape = ShapeOfLinearBatch(args);
  return WithTileFormat(args.weight.format, [&]<TileFormat kFormat>() {
    return WarpTilesOf(args.x.num_rows) == 1 ? Launch(stream, shape, &LinearBatchKernel<kFormat, 1>, args)
                                             : Launch(stream, shape, &LinearBatchKernel<kFormat, 2>, args);
  });
}

}  // namespace engine::cuda
