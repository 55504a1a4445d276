// Linear layers for many rows: weights become halves once (in memory that all layers share), then large tiles are
// multiplied, which the matrix unit limits rather than memory. Both operands already lie in the order in which lanes
// take them, so a stage is copied as it is and read without conflicts.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_output.cuh"
#include "kernels/cuda/tile_reader.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kWarps = 8;
constexpr int32_t kThreads = 32 * kWarps;

constexpr TileLayout kHalfLayout = TileLayoutOf(TileFormat::kHalf);

// --- Weights as halves -----------------------------------------------------------------------------------------------

// A warp makes the tiles of 64 columns that a tile has; weights are divided by the scale of their row.
template <TileFormat kFormat>
ENGINE_KERNEL(kThreads, 2)
HalveKernel(uint8_t* out, TiledMatrix matrix) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  const int lane = ThreadIndex() % 32;
  const int tile_index = BlockIndex() * kWarps + ThreadIndex() / 32;
  const int column_tiles = matrix.column_tiles();
  if (tile_index >= matrix.row_tiles() * column_tiles) return;
  const uint8_t* tile = matrix.tiles + static_cast<size_t>(tile_index) * kLayout.tile_bytes();
  uint8_t* to = out + static_cast<size_t>(tile_index) * (kTileRows * kLayout.columns * 2);

  TileRowFactors<kFormat> rows[2];
  float inverse[2];
  for (int half = 0; half < 2; half++) {
    const int row = lane / 4 + 8 * half;
    const RowFactors factors = matrix.factors[tile_index / column_tiles * kTileRows + row];
    rows[half].Load(tile, row, factors);
    inverse[half] = 1.0f / factors.scale;
  }
  ENGINE_UNROLL
  for (int quad = 0; quad < kLayout.columns / 64; quad++) {
    uint32_t a[4][4];
    ReadCodes<kFormat>(a, tile, quad, lane);
    ENGINE_UNROLL
    for (int step = 0; step < 4; step++) {
      const int k = 64 * quad + 16 * step;
      HalveCodes(a[step], rows, inverse, k);
      Store16(to + (k / 16 * 32 + lane) * 16, {a[step][0], a[step][1], a[step][2], a[step][3]});
    }
  }
}

// --- The product -----------------------------------------------------------------------------------------------------

constexpr int32_t kBlockRows = 128;    // of weights
constexpr int32_t kBlockTokens = 128;  // rows of activations
constexpr int32_t kStages = 3;
constexpr int32_t kStageColumns = kHalfLayout.columns;
constexpr int32_t kWeightTiles = kBlockRows / kTileRows;
constexpr int32_t kTokenTiles = kBlockTokens / kTokenTile;
constexpr int32_t kTokenTileBytes = kTokenTile * kStageColumns * 2;
constexpr int32_t kStageBytes = kWeightTiles * kHalfLayout.tile_bytes() + kTokenTiles * kTokenTileBytes;

// Warps lie 4 by 2: each has 2 tiles of weights and 8 of activations.
constexpr int32_t kWarpWeightTiles = 2;
constexpr int32_t kWarpTokenTiles = 8;

ENGINE_KERNEL(kThreads, 1) LinearManyKernel(LinearArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  uint8_t* const stages = SharedMemory<uint8_t>();
  const int lane = ThreadIndex() % 32;
  const int warp = ThreadIndex() / 32;
  const TiledMatrix& weight = args.weight;
  const PreparedRows& x = args.x;
  const int first_row_tile = BlockIndex() * kWeightTiles;
  const int first_token_tile = BlockIndexY() * kTokenTiles;
  const int num_weight_tiles = weight.row_tiles() - first_row_tile;
  const int num_token_tiles = x.row_tiles() - first_token_tile;
  const int column_tiles = weight.column_tiles();
  const int per_part = column_tiles * weight.planes;
  const int num_steps = per_part * x.parts;
  const int part_halves = x.row_tiles() * kTokenTile * x.columns;

  // All stages of the sum: planes of the weights for each part of the activations.
  const auto fetch = [&](int step) {
    if (step < num_steps) {
      uint8_t* to = stages + step % kStages * kStageBytes;
      const int tile = step % per_part;
      const int part = step / per_part;
      for (int i = ThreadIndex(); i < kStageBytes / 16; i += kThreads) {
        constexpr int kWeightPieces = kWeightTiles * kHalfLayout.tile_bytes() / 16;
        if (i < kWeightPieces) {
          constexpr int kPieces = kHalfLayout.tile_bytes() / 16;
          if (i / kPieces >= num_weight_tiles) continue;
          CopyAsync16(to + 16 * i, weight.tiles +
                                       static_cast<size_t>(first_row_tile + i / kPieces) * weight.row_tile_bytes() +
                                       static_cast<size_t>(tile) * kHalfLayout.tile_bytes() + 16 * (i % kPieces));
        } else {
          constexpr int kPieces = kTokenTileBytes / 16;
          const int from = (i - kWeightPieces) / kPieces;
          if (from >= num_token_tiles) continue;
          const uint16_t* halves = x.halves + static_cast<size_t>(part) * part_halves +
                                   (static_cast<size_t>(first_token_tile + from) * x.columns +
                                    static_cast<size_t>(tile % column_tiles) * kStageColumns) *
                                       kTokenTile;
          CopyAsync16(to + 16 * i, halves + 8 * ((i - kWeightPieces) % kPieces));
        }
      }
    }
    CommitCopies();
  };

  const int own_weight_tile = warp / 2 * kWarpWeightTiles;
  const int own_token_tile = warp % 2 * kWarpTokenTiles;
  float acc[kWarpWeightTiles][kWarpTokenTiles][4] = {};
  for (int step = 0; step < kStages - 1; step++) fetch(step);
  for (int step = 0; step < num_steps; step++) {
    WaitCopies<kStages - 2>();
    SyncThreads();  // what everyone has fetched is there, and the stage before this one has been read
    fetch(step + kStages - 1);
    const uint8_t* stage = stages + step % kStages * kStageBytes;
    ENGINE_UNROLL
    for (int pair = 0; pair < kStageColumns / 32; pair++) {
      uint32_t a[kWarpWeightTiles][2][4];
      ENGINE_UNROLL
      for (int w = 0; w < kWarpWeightTiles; w++) {
        if (own_weight_tile + w >= num_weight_tiles) break;
        ENGINE_UNROLL
        for (int s = 0; s < 2; s++) {
          const Words4 words =
              Load16(stage + (own_weight_tile + w) * kHalfLayout.tile_bytes() + ((2 * pair + s) * 32 + lane) * 16);
          a[w][s][0] = words.x;
          a[w][s][1] = words.y;
          a[w][s][2] = words.z;
          a[w][s][3] = words.w;
        }
      }
      ENGINE_UNROLL
      for (int t = 0; t < kWarpTokenTiles; t++) {
        if (own_token_tile + t >= num_token_tiles) break;
        const Words4 b = Load16(stage + kWeightTiles * kHalfLayout.tile_bytes() +
                                (own_token_tile + t) * kTokenTileBytes + (pair * 32 + lane) * 16);
        ENGINE_UNROLL
        for (int w = 0; w < kWarpWeightTiles; w++) {
          if (own_weight_tile + w >= num_weight_tiles) break;
          MultiplyTiles(acc[w][t], a[w][0], b.x, b.y);
          MultiplyTiles(acc[w][t], a[w][1], b.z, b.w);
        }
      }
    }
  }
  WaitCopies<0>();

  ENGINE_UNROLL
  for (int w = 0; w < kWarpWeightTiles; w++) {
    ENGINE_UNROLL
    for (int t = 0; t < kWarpTokenTiles; t++) {
      ENGINE_UNROLL
      for (int i = 0; i < 4; i++) {
        const int row = (first_row_tile + own_weight_tile + w) * kTileRows + lane / 4 + i / 2 * 8;
        const int token = (first_token_tile + own_token_tile + t) * kTokenTile + lane % 4 * 2 + i % 2;
        if (row >= weight.rows || token >= x.num_rows) continue;
        StoreLinear(args, row, token, Multiply(acc[w][t][i], weight.factors[row].scale));
      }
    }
  }
}

}  // namespace

TiledMatrix HalvedMatrix(const uint8_t* out, const TiledMatrix& matrix) {
  TiledMatrix halved = matrix;
  halved.tiles = out;
  halved.format = TileFormat::kHalf;
  return halved;
}

size_t HalfTileBytes(const TiledMatrix& matrix) { return HalvedMatrix(nullptr, matrix).tile_bytes(); }

LaunchShape ShapeOfHalve(const TiledMatrix& matrix) {
  return {CeilDivide(matrix.row_tiles() * matrix.column_tiles(), kWarps), 1, kThreads, 0};
}

int LaunchHalve(Stream stream, uint8_t* out, const TiledMatrix& matrix) {
  const LaunchShape shape = ShapeOfHalve(matrix);
  return WithTileFormat(
      matrix.format, [&]<TileFormat kFormat>() { return Launch(stream, shape, &HalveKernel<kFormat>, out, matrix); });
}

LaunchShape ShapeOfLinearMany(const LinearArgs& args) {
  return {CeilDivide(args.weight.rows, kBlockRows), CeilDivide(args.x.num_rows, kBlockTokens), kThreads,
          kStages * kStageBytes};
}

int LaunchLinearMany(Stream stream, const LinearArgs& args) {
  return Launch(stream, ShapeOfLinearMany(args), &LinearManyKernel, args);
}

}  // namespace engine::cuda
