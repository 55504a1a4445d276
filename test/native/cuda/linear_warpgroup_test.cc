// Linear layers by the products of a warpgroup, against those of LinearBatch.
#include <cmath>
#include <string>

#include "check.h"
#include "device.h"
#include "matrices.h"

namespace engine::cuda::test {
namespace {

struct Activations {
  Activations(int32_t num_rows, int32_t columns, int32_t parts, ActivationOrder order, const DeviceArray<float>& x)
      : halves(PreparedBytesOf(num_rows, columns, parts).halves / sizeof(uint16_t)),
        sums(PreparedBytesOf(num_rows, columns, parts).sums / sizeof(float)),
        scales(PreparedBytesOf(num_rows, columns, parts).scales / sizeof(float)),
        prepared{halves.data(), sums.data(), scales.data(), num_rows, RoundUp(columns, kColumnUnit), parts, order} {
    Expect(LaunchPrepare(TestStream(), {prepared, {x.data(), nullptr, nullptr, 0.0f, columns}}));
  }

  DeviceArray<uint16_t> halves;
  DeviceArray<float> sums, scales;
  PreparedRows prepared;
};

// Σ |weight · activation| of each product.
std::vector<double> Magnitudes(const std::vector<float>& weights, const std::vector<float>& x, int32_t columns) {
  const auto width = static_cast<size_t>(columns);
  std::vector<double> magnitudes;
  for (size_t row = 0; row < x.size(); row += width) {
    for (size_t weight = 0; weight < weights.size(); weight += width) {
      double sum = 0;
      for (size_t k = 0; k < width; k++) {
        sum += std::fabs(static_cast<double>(weights[weight + k]) * static_cast<double>(x[row + k]));
      }
      magnitudes.push_back(sum);
    }
  }
  return magnitudes;
}

// Sums have the order of LinearBatch. In the emulator they are the same; whether the two kinds of matrix products round
// alike is for a device to say, so there the difference is printed.
void ExpectAlike(const std::vector<float>& actual, const std::vector<float>& batch,
                 const std::vector<double>& magnitudes) {
#if defined(ENGINE_CUDA_EMULATOR)
  static_cast<void>(magnitudes);
  ExpectSame(actual, batch, "product");
#else
  std::vector<double> expected(batch.begin(), batch.end()), tolerance;
  double largest = 0;
  size_t num_different = 0;
  for (size_t i = 0; i < batch.size(); i++) {
    tolerance.push_back(1e-5 * magnitudes[i]);
    const double difference = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(batch[i]));
    if (magnitudes[i] > 0) largest = std::fmax(largest, difference / magnitudes[i]);
    num_different += memcmp(&actual[i], &batch[i], sizeof(float)) != 0;
  }
  ExpectNear(actual, expected, tolerance, "product");
  printf("  mma and wgmma: %zu of %zu sums differ, by up to %.3g of their terms\n", num_different, batch.size(),
         largest);
#endif
}

void CheckProduct(const StorageType& type, int32_t rows, int32_t columns, int32_t num_rows, int32_t parts) {
  Random random(Seed() + 11);
  const RandomMatrix matrix(type, rows, columns, &random);
  const std::vector<float> values = random.values(static_cast<size_t>(num_rows * columns), 3.0f);
  const DeviceArray<float> x(values);
  const DeviceArray<float> bias(random.values(static_cast<size_t>(rows)));
  const auto count = static_cast<size_t>(num_rows * rows);
  const std::vector<float> residual = random.values(count);
  const auto run = [&](const PreparedRows& prepared, bool with_bias, bool add) {
    const DeviceArray<float> out(residual);
    const LinearArgs args = {out.data(), prepared, matrix.tiled(), with_bias ? bias.data() : nullptr, add};
    Expect(prepared.order == ActivationOrder::kCores ? LaunchLinearWarpgroup(TestStream(), Limits(), args)
                                                     : LaunchLinearBatch(TestStream(), args));
    return out.Read();
  };
  const Activations lanes(num_rows, columns, parts, ActivationOrder::kLanes, x);
  const Activations cores(num_rows, columns, parts, ActivationOrder::kCores, x);
  const std::vector<double> magnitudes = Magnitudes(matrix.Weights(), values, columns);
  const std::vector<float> batch = run(lanes.prepared, true, false);
  std::vector<float> first;
  for (Ways ways; ways.Next();) {
    const std::vector<float> actual = run(cores.prepared, true, false);
    if (first.empty()) {
      first = actual;
      ExpectAlike(actual, batch, magnitudes);
    }
    ExpectSame(actual, first, "the same once more");
  }
  // Added to what is there, without a bias.
  const std::vector<float> product = run(cores.prepared, false, false);
  std::vector<float> added;
  for (size_t i = 0; i < count; i++) added.push_back(residual[i] + product[i]);
  ExpectSame(run(cores.prepared, false, true), added, "added");

  // A row alone: whatever the form of blocks.
  const int32_t row = random.below(num_rows);
  const DeviceArray<float> own(std::vector<float>(values.begin() + static_cast<ptrdiff_t>(row) * columns,
                                                  values.begin() + static_cast<ptrdiff_t>(row + 1) * columns));
  const Activations alone(1, columns, parts, ActivationOrder::kCores, own);
  const DeviceArray<float> out(static_cast<size_t>(rows));
  Expect(
      LaunchLinearWarpgroup(TestStream(), Limits(), {out.data(), alone.prepared, matrix.tiled(), bias.data(), false}));
  ExpectSame(out.Read(),
             std::vector<float>(first.begin() + static_cast<ptrdiff_t>(row) * rows,
                                first.begin() + static_cast<ptrdiff_t>(row + 1) * rows),
             "a row alone");
}

LinearArgs ArgsOf(TileFormat format, int32_t rows, int32_t num_rows) {
  LinearArgs args = {};
  args.weight = {nullptr, nullptr, format, rows, 4096, 1};
  args.x = {nullptr, nullptr, nullptr, num_rows, 4096, 1, ActivationOrder::kCores};
  return args;
}

// Which form of blocks a product takes is seen by their threads, and how many there are.
void ExpectForm(const DeviceLimits& limits, TileFormat format, int32_t rows, int32_t num_rows, int32_t threads,
                int32_t blocks) {
  const LaunchShape shape = ShapeOfLinearWarpgroup(limits, ArgsOf(format, rows, num_rows));
  if (shape.threads != threads || shape.grid_x != blocks || shape.grid_y != 1) {
    Wrong("%d by %d rows: %d by %d blocks of %d threads, not %d of %d", rows, num_rows, shape.grid_x, shape.grid_y,
          shape.threads, blocks, threads);
  }
}

void CheckForms() {
  constexpr DeviceLimits kH200 = {90, 132, 227 << 10, 228 << 10, true};
  constexpr int32_t kStaticBytes = 128;  // the barriers
  for (int32_t f = 0; f < kNumTileFormats; f++) {
    for (const int32_t num_rows : {33, 64, 100, 128, 256, 512, 2048, 16384}) {
      for (const int32_t rows : {16, 1000, 4096, 14336, 128256}) {
        const LaunchShape shape = ShapeOfLinearWarpgroup(kH200, ArgsOf(static_cast<TileFormat>(f), rows, num_rows));
        // Of blocks with one warpgroup a multiprocessor holds two, each with 1 KB of the system's.
        const int32_t most =
            shape.threads == 192 ? kH200.shared_multiprocessor_bytes / 2 - 1024 : kH200.shared_block_bytes;
        if (shape.shared_bytes + kStaticBytes > most) Wrong("%d bytes of shared memory", shape.shared_bytes);
        if (shape.grid_x < 1 || shape.grid_x > 2 * kH200.num_multiprocessors) Wrong("%d blocks", shape.grid_x);
      }
    }
  }
  ExpectForm(kH200, TileFormat::kInt4, 4096, 64, 192, 64);      // 64 rows
  ExpectForm(kH200, TileFormat::kInt4, 4096, 256, 192, 128);    // 128 rows
  ExpectForm(kH200, TileFormat::kInt4, 4096, 512, 384, 128);    // 128 rows, two warpgroups
  ExpectForm(kH200, TileFormat::kInt4, 14336, 2048, 384, 132);  // 256 rows, two warpgroups
#if defined(ENGINE_CUDA_EMULATOR)
  // The products that are checked in the emulator have all of them.
  ExpectForm(Limits(), TileFormat::kInt4, 35, 37, 192, 1);
  ExpectForm(Limits(), TileFormat::kInt4, 128, 100, 192, 2);
  ExpectForm(Limits(), TileFormat::kInt4, 145, 75, 384, 2);
  ExpectForm(Limits(), TileFormat::kHalf, 581, 490, 384, 2);  // 10 blocks, five times two
#endif
}

}  // namespace

void CheckLinearWarpgroup() {
  if (!Limits().warpgroups) return;
  const auto check = [](const StorageType& type, int32_t rows, int32_t columns, int32_t num_rows, int32_t parts) {
    Case(std::string(type.name) + " warpgroup linear, " + std::to_string(rows) + " by " + std::to_string(columns) +
             ", " + std::to_string(num_rows) + " rows",
         [&] { CheckProduct(type, rows, columns, num_rows, parts); });
  };
  for (const StorageType& type : StorageTypes()) check(type, 35, 512, 37, 1);
  const StorageType& f32 = StorageTypes()[0];
  const StorageType& f16 = StorageTypes()[1];
  const StorageType& int4 = StorageTypes()[4];
  const StorageType& q8_0 = StorageTypes()[12];
  check(f32, 81, 331, 70, 2);
  check(int4, 128, 2048 + 32, 100, 1);
  check(int4, 145, 512, 75, 2);
  check(q8_0, 300, 288, 520, 1);
  check(f16, 581, 300, 490, 1);
  Case("forms of warpgroup products", &CheckForms);
}

}  // namespace engine::cuda::test
