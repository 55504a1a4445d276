// Rows of a table, from the same tiles that a linear layer reads: models whose head is the table have it once.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_reader.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 256;

template <TileFormat kFormat>
ENGINE_KERNEL(kThreads, 4)
EmbedKernel(EmbedArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  const TiledMatrix& table = args.table;
  const int row = args.ids[BlockIndex()];
  const RowFactors factors = table.factors[row];
  const uint8_t* tiles = table.tiles + static_cast<size_t>(row / kTileRows) * table.row_tile_bytes();
  const size_t plane_bytes = static_cast<size_t>(table.column_tiles()) * kLayout.tile_bytes();
  float* out = args.out + static_cast<size_t>(BlockIndex()) * static_cast<size_t>(table.columns);
  for (int k = ThreadIndex(); k < table.columns; k += kThreads) {
    const uint8_t* tile = tiles + static_cast<size_t>(k / kLayout.columns) * kLayout.tile_bytes();
    float sum = ReadWeight<kFormat>(tile, row % kTileRows, k % kLayout.columns, factors);
    for (int plane = 1; plane < table.planes; plane++) {
      tile += plane_bytes;
      sum = Add(sum, ReadWeight<kFormat>(tile, row % kTileRows, k % kLayout.columns, factors));
    }
    out[k] = args.add ? Add(out[k], sum) : sum;
  }
}

}  // namespace

LaunchShape ShapeOfEmbed(const EmbedArgs& args) { return {args.num_rows, 1, kThreads, 0}; }

int LaunchEmbed(Stream stream, const EmbedArgs& args) {
  return WithTileFormat(args.table.format, [&]<TileFormat kFormat>() {
    return Launch(stream, ShapeOfEmbed(args), &EmbedKernel<kFormat>, args);
  });
}

}  // namespace engine::cuda
