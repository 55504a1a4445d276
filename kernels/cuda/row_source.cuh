// Rows as linear layers read them: x, rmsNorm(x) · norm or silu(x) · up, and their halves. The launches that do these
// things one by one use the same functions, so a value has the same bits whoever makes it. Blocks have kRowThreads
// threads, on which the orders of sums depend.
#pragma once

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/math.cuh"

namespace engine::cuda {
namespace {

inline constexpr int32_t kRowThreads = 256;
inline constexpr int32_t kWarpColumns = 512;  // the sums of groups up to this are a warp's

ENGINE_DEVICE float WarpSum(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value = Add(value, ShuffleXor(value, mask));
  return value;
}

ENGINE_DEVICE float Silu(float x) { return Divide(x, Add(1.0f, Exp(-x))); }

// Σ x² of every count-th value from `index` on.
ENGINE_DEVICE float SumSquares(const float* x, int columns, int index, int count) {
  constexpr int kLoads = 8;  // under way together
  float squares = 0.0f;
  for (int first = index; first < columns; first += kLoads * count) {
    float values[kLoads];
    ENGINE_UNROLL
    for (int i = 0; i < kLoads; i++) values[i] = first + i * count < columns ? x[first + i * count] : 0.0f;
    ENGINE_UNROLL
    for (int i = 0; i < kLoads; i++) squares = Fma(values[i], values[i], squares);
  }
  return squares;
}
// What RMSNorm multiplies a row with.
ENGINE_DEVICE float InverseRms(float squares, int columns, float eps) {
  const float mean = Divide(squares, static_cast<float>(columns));
  return Divide(1.0f, SquareRoot(Add(mean, eps)));
}
ENGINE_DEVICE float Normalised(float x, float inverse, float weight) { return Multiply(Multiply(x, inverse), weight); }

// The values of one row of a RowSource. All threads of the block make it together.
class SourceRow {
 public:
  ENGINE_DEVICE SourceRow(const RowSource& source, int row)
      : x_(source.x + static_cast<size_t>(row) * static_cast<size_t>(source.columns)),
        norm_(source.norm),
        up_(source.up == nullptr ? nullptr
                                 : source.up + static_cast<size_t>(row) * static_cast<size_t>(source.columns)) {
    if (norm_ == nullptr) return;
    const int columns = source.columns;
    const float squares = columns > kWarpColumns ? BlockSum(SumSquares(x_, columns, ThreadIndex(), kRowThreads))
                                                 : WarpSum(SumSquares(x_, columns, ThreadIndex() % 32, 32));
    inverse_ = InverseRms(squares, columns, source.eps);
  }
  ENGINE_DEVICE float operator[](int k) const {
    const float x = x_[k];
    if (norm_ != nullptr) return Normalised(x, inverse_, norm_[k]);
    return up_ != nullptr ? Multiply(Silu(x), up_[k]) : x;
  }

 private:
  const float* x_;
  const float* norm_;
  const float* up_;
  float inverse_ = 0.0f;
};

// Makes a row of `columns` values ready for the matrix unit, filled up with zeros to `padded`; all threads of the block
// do it together. It is scaled by a power of two that brings its largest magnitude to 2^13 … 2^14: no half overflows,
// and what is 2^27 times smaller still counts. Below 2^−100 it is zero. place(part, k) is where the half of an even
// column goes, before that of the next column, sum_place(group) where the sum of 16 columns goes, if `sums`. Returns
// the power of two that undoes the scaling, NaN for a row with an infinity or a NaN.
template <class Place, class SumPlace>
ENGINE_DEVICE float PrepareRow(const SourceRow& row, int columns, int padded, int parts, Place place, bool sums,
                               SumPlace sum_place) {
  uint32_t largest = 0;  // magnitudes compare as integers do, and NaN is above infinity
  for (int k = ThreadIndex(); k < columns; k += kRowThreads) {
    const uint32_t magnitude = BitsOf(row[k]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  largest = BlockMax(largest);
  const bool finite = largest < kInfinityBits;
  const bool usable = finite && largest >= BitsOf(0x1p-100f);
  const uint32_t exponent = largest >> 23;  // plus 127
  const float factor = usable ? FloatOf((127 + 13 + 127 - exponent) << 23) : 0.0f;

  for (int k = 2 * ThreadIndex(); k < padded; k += 2 * kRowThreads) {
    float first = usable && k < columns ? Multiply(row[k], factor) : 0.0f;
    float second = usable && k + 1 < columns ? Multiply(row[k + 1], factor) : 0.0f;
    for (int part = 0; part < parts; part++) {
      const uint32_t halves = HalvesOf(first, second);
      *reinterpret_cast<uint32_t*>(place(part, k)) = halves;
      first = Add(first, -FloatOfHalf(static_cast<uint16_t>(halves)));
      second = Add(second, -FloatOfHalf(static_cast<uint16_t>(halves >> 16)));
    }
  }
  if (sums) {
    SyncThreads();
    for (int group = ThreadIndex(); group < padded / 16; group += kRowThreads) {
      float sum = 0.0f;
      for (int k = 16 * group; k < 16 * group + 16; k++) {
        for (int part = 0; part < parts; part++) sum = Add(sum, FloatOfHalf(place(part, k - k % 2)[k % 2]));
      }
      *sum_place(group) = sum;
    }
  }
  return !finite ? NotANumber() : usable ? FloatOf((exponent - 13) << 23) : 0.0f;
}

}  // namespace
}  // namespace engine::cuda
