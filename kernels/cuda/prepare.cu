// Activations as the right operand of the matrix unit.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_source.cuh"

namespace engine::cuda {
namespace {

// A block per row, those that fill up the last tile included.
ENGINE_KERNEL(kRowThreads, 3) PrepareKernel(PrepareArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const PreparedRows& out = args.out;
  const int row = BlockIndex();
  const int in_tile = row % kTokenTile;
  const auto tile = static_cast<size_t>(row / kTokenTile);
  const auto columns = static_cast<size_t>(out.columns);
  const size_t part_halves = static_cast<size_t>(out.row_tiles() * kTokenTile) * columns;
  const auto place = [&](int part, int k) {
    const int in_order =
        out.order == ActivationOrder::kLanes ? ActivationPlaceOf(in_tile, k) : ActivationCoreOf(in_tile, k);
    return out.halves + static_cast<size_t>(part) * part_halves + tile * columns * kTokenTile +
           static_cast<size_t>(in_order);
  };
  const auto sum_place = [&](int group) {
    return out.sums + (tile * (columns / 16) + static_cast<size_t>(group)) * kTokenTile + in_tile;
  };
  const bool padding = row >= out.num_rows;  // has no columns: all of it is zero
  const SourceRow source(args.source, padding ? 0 : row);
  const float scale =
      PrepareRow(source, padding ? 0 : args.source.columns, out.columns, out.parts, place, true, sum_place);
  if (ThreadIndex() == 0) out.scales[row] = scale;
}

}  // namespace

PreparedBytes PreparedBytesOf(int32_t num_rows, int32_t columns, int32_t parts) {
  const auto rows = static_cast<size_t>(RoundUp(num_rows, kTokenTile));
  const auto padded = static_cast<size_t>(RoundUp(columns, kColumnUnit));
  return {static_cast<size_t>(parts) * rows * padded * sizeof(uint16_t), rows * (padded / 16) * sizeof(float),
          rows * sizeof(float)};
}

LaunchShape ShapeOfPrepare(const PrepareArgs& args) {
  return {RoundUp(args.out.num_rows, kTokenTile), 1, kRowThreads, 0};
}

int LaunchPrepare(Stream stream, const PrepareArgs& args) {
  return Launch(stream, ShapeOfPrepare(args), &PrepareKernel, args);
}

}  // namespace engine::cuda
