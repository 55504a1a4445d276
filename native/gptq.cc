#include "native/gptq.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace engine {
namespace {

// Rows of Xᵀ, or of the factor, that are handled at once: what they share is read once for all of them.
constexpr int32_t kBlock = 16;
// Columns of the inverse that one thread computes at once: with 4,096 rows they take 2 MiB.
constexpr int32_t kChunk = 64;

// Runs task(i) for i = 0 … count − 1 on `threads` threads.
Failure ForEach(int32_t count, int32_t threads, const std::atomic<bool>& cancelled,
                const std::function<void(int32_t)>& task) {
  std::atomic<int32_t> next = 0;
  std::atomic<bool> failed = false;
  const auto work = [&] {
    try {
      for (int32_t i; !failed && !cancelled.load(std::memory_order_relaxed) && (i = next.fetch_add(1)) < count;)
        task(i);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int32_t i = 1; i < std::min(threads, count); i++) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // A limit on threads: fewer do the same work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failed) throw std::bad_alloc();
  if (cancelled.load(std::memory_order_relaxed)) return {"ABORTED", {}};
  return {};
}

double Dot(const double* a, const double* b, int32_t count) {
  constexpr int32_t kLanes = 8;
  double sums[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; lane++) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; i++) sums[0] += a[i] * b[i];
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

// The upper triangular R with R Rᵀ = H, in place of H's upper triangle: rows from the last to the first, as each needs
// those below it. Damping has made H positive definite.
Failure Factor(double* h, int32_t columns, const std::atomic<bool>& cancelled) {
  const auto row = [&](int32_t i) { return h + static_cast<size_t>(i) * static_cast<size_t>(columns); };
  for (int32_t end = columns; end > 0; end -= kBlock) {
    if (cancelled.load(std::memory_order_relaxed)) return {"ABORTED", {}};
    const int32_t begin = std::max(end - kBlock, 0);
    for (int32_t j = columns - 1; j >= begin; j--) {
      const double* below = row(j);
      for (int32_t i = std::min(j, end) - 1; i >= begin; i--) {
        if (j >= end) row(i)[j] = (row(i)[j] - Dot(row(i) + j + 1, below + j + 1, columns - j - 1)) / below[j];
      }
      if (j >= end) continue;
      double* pivot = row(j);
      pivot[j] = std::sqrt(pivot[j] - Dot(pivot + j + 1, pivot + j + 1, columns - j - 1));
      for (int32_t i = begin; i < j; i++) {
        row(i)[j] = (row(i)[j] - Dot(row(i) + j + 1, pivot + j + 1, columns - j - 1)) / pivot[j];
      }
    }
  }
  return {};
}

}  // namespace

Failure AddGram(const kernels::Kernels& kernels, const float* x, int32_t num_rows, int32_t columns, int32_t threads,
                const std::atomic<bool>& cancelled, double* gram) {
  const auto n = static_cast<size_t>(num_rows), k = static_cast<size_t>(columns);
  std::vector<float> transposed(n * k);  // [columns, num_rows]
  for (size_t c0 = 0; c0 < k; c0 += kBlock) {
    const size_t c1 = std::min(c0 + kBlock, k);
    for (size_t r = 0; r < n; r++) {
      for (size_t c = c0; c < c1; c++) transposed[c * n + r] = x[r * k + c];
    }
  }
  return ForEach((columns + kBlock - 1) / kBlock, threads, cancelled, [&](int32_t block) {
    const int32_t begin = block * kBlock, count = std::min(kBlock, columns - begin);
    const float* rows = transposed.data() + static_cast<size_t>(begin) * n;
    const int32_t width = columns - begin;
    std::vector<float> products(static_cast<size_t>(count) * static_cast<size_t>(width));
    std::vector<uint8_t> scratch(kernels::scratch_bytes(count, num_rows, 1, 1) + 64);
    const auto address = reinterpret_cast<uintptr_t>(scratch.data());
    kernels::LinearArgs args = {};
    args.out = products.data();
    args.x = rows;
    args.num_rows = count;
    args.weight = {
        reinterpret_cast<const uint8_t*>(rows), kernels::DType::kF32, width, num_rows, false, n * sizeof(float)};
    args.scratch = scratch.data() + (64 - address % 64) % 64;
    kernels.linear(args, {0, 1});
    for (int32_t r = 0; r < count; r++) {
      const float* product = products.data() + static_cast<size_t>(r) * static_cast<size_t>(width);
      double* sums = gram + static_cast<size_t>(begin + r) * k + static_cast<size_t>(begin);
      for (int32_t c = r; c < width; c++) sums[c] += static_cast<double>(product[c]);
    }
  });
}

Failure MakeErrorModel(double* gram, int32_t columns, double damping, int32_t threads,
                       const std::atomic<bool>& cancelled, float* weights, float* feedback) {
  const auto k = static_cast<size_t>(columns);
  double mean = 0;
  for (size_t i = 0; i < k; i++) mean += gram[i * k + i] / static_cast<double>(columns);
  const double added = mean > 0 ? damping * mean : 1;
  for (size_t i = 0; i < k; i++) gram[i * k + i] += added;
  if (Failure failure = Factor(gram, columns, cancelled)) return failure;

  double largest = 0;
  for (size_t i = 0; i < k; i++) largest = std::max(largest, gram[i * k + i]);
  for (size_t i = 0; i < k; i++) {
    const double d = gram[i * k + i] / largest;
    weights[i] = static_cast<float>(d * d);
  }
  // R's columns divided by its diagonal are M; back substitution, row by row from the last: row i of M⁻¹ is
  // e(i) − Σ M[i][j] · row j.
  return ForEach((columns + kChunk - 1) / kChunk, threads, cancelled, [&](int32_t chunk) {
    const int32_t begin = chunk * kChunk, width = std::min(kChunk, columns - begin), end = begin + width;
    std::vector<double> inverse(static_cast<size_t>(end) * kChunk);  // [end, kChunk]
    for (int32_t i = end - 1; i >= 0; i--) {
      double* out = inverse.data() + static_cast<size_t>(i) * kChunk;
      const double* factors = gram + static_cast<size_t>(i) * k;
      for (int32_t j = i + 1; j < end; j++) {
        const double factor = factors[j] / gram[static_cast<size_t>(j) * k + static_cast<size_t>(j)];
        const double* later = inverse.data() + static_cast<size_t>(j) * kChunk;
        for (int32_t c = 0; c < kChunk; c++) out[c] -= factor * later[c];
      }
      if (i >= begin) out[i - begin] += 1;
    }
    for (int32_t i = 0; i < columns; i++) {
      float* row = feedback + static_cast<size_t>(i) * k + static_cast<size_t>(begin);
      for (int32_t c = 0; c < width; c++) {
        row[c] = i < end ? static_cast<float>(inverse[static_cast<size_t>(i) * kChunk + static_cast<size_t>(c)]) : 0.0f;
      }
    }
  });
}

}  // namespace engine
