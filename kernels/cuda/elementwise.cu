// Normalisation, rotation, pointwise functions and rows that are chosen. Pointwise functions give the bits of
// kernels/cpu/elementwise.inc, whose formulas they are.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotation.cuh"
#include "kernels/cuda/row_source.cuh"

namespace engine::cuda {
namespace {

constexpr int32_t kThreads = kRowThreads;

// --- Norms: a block per row, or a warp per group where groups are short ----------------------------------------------

// The threads that share a row: index of count.
struct RowShare {
  int row;
  int index;
  int count;
  bool whole_block;

  ENGINE_DEVICE explicit RowShare(int columns) : whole_block(columns > kWarpColumns) {
    count = whole_block ? kThreads : 32;
    index = ThreadIndex() % count;
    row = whole_block ? BlockIndex() : BlockIndex() * (kThreads / 32) + ThreadIndex() / 32;
  }
  ENGINE_DEVICE float Sum(float value) const { return whole_block ? BlockSum(value) : WarpSum(value); }
};

ENGINE_KERNEL(kThreads, 4) RmsNormKernel(NormArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const RowShare share(args.columns);
  if (share.row >= args.num_rows) return;
  const float* x = args.x + static_cast<size_t>(share.row) * static_cast<size_t>(args.columns);
  float* out = args.out + static_cast<size_t>(share.row) * static_cast<size_t>(args.columns);
  const float squares = share.Sum(SumSquares(x, args.columns, share.index, share.count));
  const float inverse = InverseRms(squares, args.columns, args.eps);
  for (int i = share.index; i < args.columns; i += share.count) out[i] = Normalised(x[i], inverse, args.weight[i]);
}

ENGINE_KERNEL(kThreads, 4) LayerNormKernel(NormArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const RowShare share(args.columns);
  if (share.row >= args.num_rows) return;
  const float* x = args.x + static_cast<size_t>(share.row) * static_cast<size_t>(args.columns);
  float* out = args.out + static_cast<size_t>(share.row) * static_cast<size_t>(args.columns);
  const float count = static_cast<float>(args.columns);
  float sum = 0.0f;
  for (int i = share.index; i < args.columns; i += share.count) sum = Add(sum, x[i]);
  const float mean = Divide(share.Sum(sum), count);
  float squares = 0.0f;
  for (int i = share.index; i < args.columns; i += share.count) {
    const float difference = Add(x[i], -mean);
    squares = Fma(difference, difference, squares);
  }
  const float inverse = Divide(1.0f, SquareRoot(Add(Divide(share.Sum(squares), count), args.eps)));
  for (int i = share.index; i < args.columns; i += share.count) {
    const float scaled = Multiply(Multiply(Add(x[i], -mean), inverse), args.weight[i]);
    out[i] = args.bias != nullptr ? Add(scaled, args.bias[i]) : scaled;
  }
}

// --- Rotation: a thread per pair -------------------------------------------------------------------------------------

ENGINE_KERNEL(kThreads, 4) RopeKernel(RopeArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const int num_heads = args.width / args.head_dim;
  const int64_t item = static_cast<int64_t>(BlockIndex()) * kThreads + ThreadIndex();
  const int pair = static_cast<int>(item % args.rotation.num_pairs);
  const int64_t head = item / args.rotation.num_pairs;  // of all rows
  const int64_t row = head / num_heads;
  if (row >= args.num_rows) return;
  RotatePair(args.x + row * args.width + head % num_heads * args.head_dim, args.rotation, row, pair);
}

// --- Pointwise -------------------------------------------------------------------------------------------------------

// Calls visit(i) for this thread's i below count.
template <class Visit>
ENGINE_DEVICE void ForEach(int64_t count, Visit visit) {
  const int64_t stride = static_cast<int64_t>(NumBlocks()) * kThreads;
  for (int64_t i = static_cast<int64_t>(BlockIndex()) * kThreads + ThreadIndex(); i < count; i += stride) visit(i);
}

ENGINE_KERNEL(kThreads, 4) SiluMulKernel(float* out, const float* gate, const float* up, int64_t count) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  ForEach(count, [=](int64_t i) { out[i] = Multiply(Silu(gate[i]), up[i]); });
}

ENGINE_DEVICE float GeluTanh(float x) {
  const float minus_2u = Multiply(x, Fma(-0.0713548163f, Multiply(x, x), -1.5957691216f));
  return Divide(x, Add(1.0f, Exp(minus_2u)));
}

// Φ(−a) for a ≥ 0
ENGINE_DEVICE float NormalTail(float a) {
  a = a < 14.0f ? a : 14.0f;
  const float square = Multiply(a, a);
  const float lost = Fma(a, a, -square);
  const float gauss = Exp(Multiply(-0.5f, square));
  const float corrected = Fma(Multiply(-0.5f, lost), gauss, gauss);
  const float t = Divide(1.0f, Fma(0.3f, a, 1.0f));
  const float coefficients[] = {3.83344067e-2f, -1.68952607e-1f, 2.28218579e-1f, -7.60009661e-2f, 1.42185945e-1f,
                                9.48326275e-2f, 1.21882137e-1f,  1.19493053e-1f, 6.85347845e-6f};
  return Multiply(corrected, Horner(t, coefficients));
}

ENGINE_DEVICE float GeluErf(float x) {
  const float tail = NormalTail(Magnitude(x));
  return Multiply(x, 0.0f < x ? Add(1.0f, -tail) : tail);
}

ENGINE_KERNEL(kThreads, 4) GeluKernel(float* out, const float* x, int64_t count, bool approximate) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  ForEach(count, [=](int64_t i) { out[i] = approximate ? GeluTanh(x[i]) : GeluErf(x[i]); });
}

ENGINE_KERNEL(kThreads, 4) AddKernel(float* x, const float* y, int64_t count) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  ForEach(count, [=](int64_t i) { x[i] = Add(x[i], y[i]); });
}

ENGINE_KERNEL(kThreads, 4) SelectRowsKernel(SelectRowsArgs args) {
  LetNextLaunchBegin();
  WaitForEarlierLaunches();
  const auto width = static_cast<size_t>(args.width);
  const auto row = static_cast<size_t>(BlockIndex());
  const float* x = args.x + static_cast<size_t>(args.rows[row]) * width;
  for (int i = ThreadIndex(); i < args.width; i += kThreads) args.out[row * width + static_cast<size_t>(i)] = x[i];
}

}  // namespace

LaunchShape ShapeOfNorm(const NormArgs& args) {
  const int32_t rows_per_block = args.columns > kWarpColumns ? 1 : kThreads / 32;
  return {CeilDivide(args.num_rows, rows_per_block), 1, kThreads, 0};
}

int LaunchRmsNorm(Stream stream, const NormArgs& args) {
  return Launch(stream, ShapeOfNorm(args), &RmsNormKernel, args);
}

int LaunchLayerNorm(Stream stream, const NormArgs& args) {
  return Launch(stream, ShapeOfNorm(args), &LayerNormKernel, args);
}

LaunchShape ShapeOfRope(const RopeArgs& args) {
  const int64_t pairs = static_cast<int64_t>(args.num_rows) * (args.width / args.head_dim) * args.rotation.num_pairs;
  return {static_cast<int32_t>((pairs + kThreads - 1) / kThreads), 1, kThreads, 0};
}

int LaunchRope(Stream stream, const RopeArgs& args) { return Launch(stream, ShapeOfRope(args), &RopeKernel, args); }

LaunchShape ShapeOfPointwise(const DeviceLimits& limits, int64_t count) {
  constexpr int32_t kResident = 8;  // blocks of a multiprocessor
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  const int64_t most = static_cast<int64_t>(limits.num_multiprocessors) * kResident;
  return {static_cast<int32_t>(blocks < most ? blocks : most), 1, kThreads, 0};
}

int LaunchSiluMul(Stream stream, const DeviceLimits& limits, float* out, const float* gate, const float* up,
                  int64_t count) {
  return Launch(stream, ShapeOfPointwise(limits, count), &SiluMulKernel, out, gate, up, count);
}

int LaunchGelu(Stream stream, const DeviceLimits& limits, float* out, const float* x, int64_t count, bool approximate) {
  return Launch(stream, ShapeOfPointwise(limits, count), &GeluKernel, out, x, count, approximate);
}

int LaunchAdd(Stream stream, const DeviceLimits& limits, float* x, const float* y, int64_t count) {
  return Launch(stream, ShapeOfPointwise(limits, count), &AddKernel, x, y, count);
}

LaunchShape ShapeOfSelectRows(const SelectRowsArgs& args) { return {args.num_rows, 1, kThreads, 0}; }

int LaunchSelectRows(Stream stream, const SelectRowsArgs& args) {
  return Launch(stream, ShapeOfSelectRows(args), &SelectRowsKernel, args);
}

}  // namespace engine::cuda
