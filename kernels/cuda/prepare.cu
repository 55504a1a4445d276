// Activations as the right operand of the matrix unit.
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/launch.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = 256;

// A block per row, those that fill up the last tile included. The row is scaled by a power of two that brings its
// largest magnitude to 2^13 … 2^14: no half overflows, and what is 2^27 times smaller still counts. Below 2^−100 it is
// zero.
ENGINE_KERNEL(kThreads, 4) PrepareKernel(PrepareArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const PreparedRows& out = args.out;
  const int row = BlockIndex();
  const bool padding = row >= out.num_rows;
  const int columns = args.source.columns;
  const float* x = args.source.x + static_cast<size_t>(row) * static_cast<size_t>(columns);

  uint32_t largest = 0;  // magnitudes compare as integers do, and NaN is above infinity
  if (!padding) {
    for (int k = ThreadIndex(); k < columns; k += kThreads) {
      const uint32_t magnitude = BitsOf(x[k]) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  largest = BlockMax(largest);
  const bool finite = largest < 0x7f800000;
  const bool usable = finite && largest >= BitsOf(0x1p-100f);
  const uint32_t exponent = largest >> 23;  // plus 127
  const float factor = usable ? FloatOf((127 + 13 + 127 - exponent) << 23) : 0.0f;
  if (ThreadIndex() == 0) {
    out.scales[row] = !finite ? FloatOf(0x7fc00000) : usable ? FloatOf((exponent - 13) << 23) : 0.0f;
  }

  const auto place_of = [&](int k) {
    const int in_tile = row % kTokenTile;
    return out.order == ActivationOrder::kLanes ? ActivationPlaceOf(in_tile, k) : ActivationCoreOf(in_tile, k);
  };
  const size_t tile = static_cast<size_t>(row / kTokenTile) * static_cast<size_t>(out.columns);
  const size_t part_halves = static_cast<size_t>(out.row_tiles() * kTokenTile) * static_cast<size_t>(out.columns);
  for (int group = ThreadIndex(); group < out.columns / 16; group += kThreads) {
    float sum = 0.0f;
    for (int k = 16 * group; k < 16 * group + 16; k++) {
      float value = usable && k < columns ? Multiply(x[k], factor) : 0.0f;
      uint16_t* to = out.halves + tile * kTokenTile + static_cast<size_t>(place_of(k));
      for (int part = 0; part < out.parts; part++, to += part_halves) {
        const uint16_t half = HalfOf(value);
        *to = half;
        sum = Add(sum, FloatOfHalf(half));
        value = Add(value, -FloatOfHalf(half));
      }
    }
    out.sums[(static_cast<size_t>(row / kTokenTile) * static_cast<size_t>(out.columns / 16) +
              static_cast<size_t>(group)) *
                 kTokenTile +
             static_cast<size_t>(row % kTokenTile)] = sum;
  }
}

}  // namespace

PreparedBytes PreparedBytesOf(int32_t num_rows, int32_t columns, int32_t parts) {
  const auto rows = static_cast<size_t>(RoundUp(num_rows, kTokenTile));
  const auto padded = static_cast<size_t>(RoundUp(columns, kColumnUnit));
  return {static_cast<size_t>(parts) * rows * padded * sizeof(uint16_t), rows * (padded / 16) * sizeof(float),
          rows * sizeof(float)};
}

LaunchShape ShapeOfPrepare(const PrepareArgs& args) { return {RoundUp(args.out.num_rows, kTokenTile), 1, kThreads, 0}; }

int LaunchPrepare(Stream stream, const PrepareArgs& args) {
  return Launch(stream, ShapeOfPrepare(args), &PrepareKernel, args);
}

}  // namespace engine::cuda
