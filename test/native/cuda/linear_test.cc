// Tiles, embeddings, prepared activations and linear layers.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "check.h"
#include "device.h"
#include "kernels/cpu/half.h"
#include "matrices.h"

namespace engine::cuda::test {
namespace {

// Prepared rows of random activations, and what they stand for.
struct Activations {
  Activations(int32_t num_rows, int32_t columns, int32_t parts, const std::vector<float>& values)
      : x(values),
        halves(PreparedBytesOf(num_rows, columns, parts).halves / sizeof(uint16_t)),
        sums(PreparedBytesOf(num_rows, columns, parts).sums / sizeof(float)),
        scales(PreparedBytesOf(num_rows, columns, parts).scales / sizeof(float)),
        prepared{halves.data(),          sums.data(), scales.data(), num_rows, RoundUp(columns, kColumnUnit), parts,
                 ActivationOrder::kLanes} {
    Expect(LaunchPrepare(TestStream(), {prepared, {x.data(), nullptr, nullptr, 0.0f, columns}}));
  }

  // [num_rows, columns]
  std::vector<double> Values(int32_t columns) const {
    const std::vector<uint16_t> all = halves.Read();
    const std::vector<float> all_scales = scales.Read();
    std::vector<double> values;
    for (int32_t row = 0; row < prepared.num_rows; row++) {
      for (int32_t k = 0; k < columns; k++) {
        double value = 0;
        for (int32_t part = 0; part < prepared.parts; part++) value += static_cast<double>(At(all, part, row, k));
        values.push_back(value * static_cast<double>(all_scales[static_cast<size_t>(row)]));
      }
    }
    return values;
  }
  float At(const std::vector<uint16_t>& all, int32_t part, int32_t row, int32_t k) const {
    const int32_t tile = (part * prepared.row_tiles() + row / kTokenTile) * prepared.columns;
    return kernels::float_from_f16(
        all[static_cast<size_t>(tile * kTokenTile + ActivationPlaceOf(row % kTokenTile, k))]);
  }

  DeviceArray<float> x;
  DeviceArray<uint16_t> halves;
  DeviceArray<float> sums, scales;
  PreparedRows prepared;
};

void CheckEmbed(const StorageType& type, int32_t rows, int32_t columns, bool exact) {
  Random random(Seed() + 17);
  const RandomMatrix matrix(type, rows, columns, &random);
  const std::vector<float> weights = matrix.Weights();
  std::vector<int32_t> ids(9);
  for (int32_t& id : ids) id = random.below(rows);
  ids[0] = 0;
  ids[1] = rows - 1;
  const DeviceArray<int32_t> device_ids(ids);
  const auto width = static_cast<size_t>(columns);
  std::vector<float> expected(ids.size() * width);
  for (size_t r = 0; r < ids.size(); r++) {
    std::copy_n(weights.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(ids[r]) * width), width,
                expected.begin() + static_cast<ptrdiff_t>(r * width));
  }
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(expected.size());
    Expect(LaunchEmbed(TestStream(),
                       {out.data(), matrix.tiled(), device_ids.data(), static_cast<int32_t>(ids.size()), false}));
    const std::vector<float> actual = out.Read();
    if (exact) {
      ExpectSame(actual, expected, "embedding");
    } else {
      for (size_t r = 0; r < ids.size(); r++) {
        double largest = 0;
        for (size_t k = 0; k < width; k++)
          largest = std::max(largest, std::fabs(static_cast<double>(expected[r * width + k])));
        for (size_t k = r * width; k < (r + 1) * width; k++) {
          const double error = std::fabs(static_cast<double>(actual[k]) - static_cast<double>(expected[k]));
          if (!(error <= 0x1p-23 * largest)) Wrong("embedding: value %zu is off by %g of %g", k, error, largest);
        }
      }
    }
    // Once more, added to what is there.
    Expect(LaunchEmbed(TestStream(),
                       {out.data(), matrix.tiled(), device_ids.data(), static_cast<int32_t>(ids.size()), true}));
    std::vector<float> twice = actual;
    for (float& value : twice) value += value;
    ExpectSame(out.Read(), twice, "embedding added");
  }
}

void CheckPrepare(int32_t num_rows, int32_t columns, int32_t parts) {
  Random random(Seed() + 3);
  std::vector<float> x = random.values(static_cast<size_t>(num_rows * columns));
  for (int32_t row = 0; row < num_rows; row++) {
    const float magnitude[] = {1.0f, 1e30f, 1e-20f, 70000.0f};
    for (int32_t k = 0; k < columns; k++) x[static_cast<size_t>(row * columns + k)] *= magnitude[row % 4];
  }
  if (num_rows > 4) std::fill_n(x.begin() + 4 * columns, columns, 0.0f);
  if (num_rows > 5) x[static_cast<size_t>(5 * columns + columns / 2)] = INFINITY;
  const auto skipped = [&](int32_t row) { return row == 5; };
  for (Ways ways; ways.Next();) {
    const Activations activations(num_rows, columns, parts, x);
    const std::vector<double> values = activations.Values(columns);
    for (int32_t row = 0; row < num_rows; row++) {
      const float* from = x.data() + row * columns;
      double largest = 0;
      for (int32_t k = 0; k < columns; k++) largest = std::max(largest, std::fabs(static_cast<double>(from[k])));
      for (int32_t k = 0; k < columns; k++) {
        const double value = values[static_cast<size_t>(row * columns + k)];
        const double wanted = static_cast<double>(from[k]);
        const double tolerance = std::fabs(wanted) * (parts == 2 ? 0x1p-21 : 0x1p-11) + largest * 0x1p-38;
        if (skipped(row) ? !std::isnan(value) : !(std::fabs(value - wanted) <= tolerance)) {
          Wrong("row %d, column %d is %g, not %g", row, k, value, wanted);
        }
      }
    }
    const std::vector<uint16_t> halves = activations.halves.Read();
    const std::vector<float> sums = activations.sums.Read();
    const int32_t padded = activations.prepared.columns;
    for (int32_t row = 0; row < RoundUp(num_rows, kTokenTile); row++) {
      for (int32_t k = 0; k < padded; k++) {
        if ((row >= num_rows || k >= columns) && activations.At(halves, parts - 1, row, k) != 0.0f)
          Wrong("padding is not zero");
      }
      for (int32_t group = 0; group < padded / 16; group++) {
        double sum = 0;
        for (int32_t part = 0; part < parts; part++) {
          for (int32_t i = 0; i < 16; i++)
            sum += static_cast<double>(activations.At(halves, part, row, 16 * group + i));
        }
        const auto place =
            static_cast<size_t>((row / kTokenTile * (padded / 16) + group) * kTokenTile + row % kTokenTile);
        if (!(std::fabs(static_cast<double>(sums[place]) - sum) <= 0.02))
          Wrong("sum %zu is %g, not %g", place, static_cast<double>(sums[place]), sum);
      }
    }
  }
}

// out = x · weightsᵀ + bias in float64, and a bound of what float32 sums may lose of it.
void Reference(const std::vector<double>& x, const std::vector<double>& weights, const std::vector<float>& bias,
               int32_t num_rows, int32_t columns, std::vector<double>* out, std::vector<double>* tolerance) {
  const auto rows = static_cast<int32_t>(weights.size()) / columns;
  for (int32_t t = 0; t < num_rows; t++) {
    for (int32_t r = 0; r < rows; r++) {
      double sum = 0, magnitude = 0;
      for (int32_t k = 0; k < columns; k++) {
        const double product = x[static_cast<size_t>(t * columns + k)] * weights[static_cast<size_t>(r * columns + k)];
        sum += product;
        magnitude += std::fabs(product);
      }
      if (!bias.empty()) sum += static_cast<double>(bias[static_cast<size_t>(r)]);
      out->push_back(sum);
      tolerance->push_back(1e-5 * magnitude + 1e-6 * std::fabs(sum));
    }
  }
}

// The halves of a matrix that LaunchHalve made.
std::vector<double> HalvedWeights(const TiledMatrix& halved) {
  std::vector<uint8_t> tiles(halved.tile_bytes());
  CopyFromDevice(tiles.data(), halved.tiles, tiles.size());
  std::vector<RowFactors> factors(static_cast<size_t>(halved.row_tiles() * kTileRows));
  CopyFromDevice(factors.data(), halved.factors, halved.factor_bytes());
  const TileLayout layout = TileLayoutOf(TileFormat::kHalf);
  std::vector<double> weights;
  for (int32_t row = 0; row < halved.rows; row++) {
    for (int32_t k = 0; k < halved.columns; k++) {
      double sum = 0;
      for (int32_t plane = 0; plane < halved.planes; plane++) {
        const size_t tile =
            static_cast<size_t>(row / kTileRows) * halved.row_tile_bytes() +
            static_cast<size_t>((plane * halved.column_tiles() + k / layout.columns) * layout.tile_bytes());
        uint16_t half;
        const CodePlace place = CodePlaceOf(16, row % kTileRows, k % layout.columns);
        memcpy(&half, tiles.data() + tile + place.byte, sizeof half);
        sum += static_cast<double>(kernels::float_from_f16(half));
      }
      weights.push_back(sum * static_cast<double>(factors[static_cast<size_t>(row)].scale));
    }
  }
  return weights;
}

void CheckFew(const StorageType& type, int32_t rows, int32_t columns, int32_t num_rows, int32_t parts, bool biased) {
  Random random(Seed() + 5);
  const RandomMatrix matrix(type, rows, columns, &random);
  const std::vector<float> weights = matrix.Weights();
  const std::vector<float> x = random.values(static_cast<size_t>(num_rows * columns), 3.0f);
  const std::vector<float> bias = biased ? random.values(static_cast<size_t>(rows)) : std::vector<float>();
  const DeviceArray<float> device_bias(bias, Content::kWeights);
  const Activations activations(num_rows, columns, parts, x);
  std::vector<double> expected, tolerance;
  Reference(activations.Values(columns), {weights.begin(), weights.end()}, bias, num_rows, columns, &expected,
            &tolerance);

  const auto run = [&](const PreparedRows& prepared) {
    const DeviceArray<float> out(static_cast<size_t>(prepared.num_rows * rows));
    Expect(LaunchLinear(TestStream(), Limits(),
                        FewOf({out.data(), prepared, matrix.tiled(), biased ? device_bias.data() : nullptr, false})));
    return out.Read();
  };
  std::vector<float> first;
  for (Ways ways; ways.Next();) {
    const std::vector<float> actual = run(activations.prepared);
    ExpectNear(actual, expected, tolerance, "linear");
    if (first.empty()) first = actual;
    ExpectSame(actual, first, "the same once more");
  }
  // A row alone, and at another place among others.
  const int32_t row = random.below(num_rows);
  const auto from = x.begin() + static_cast<ptrdiff_t>(row) * columns;
  const std::vector<float> own(from, from + columns);
  const std::vector<float> own_out(first.begin() + static_cast<ptrdiff_t>(row) * rows,
                                   first.begin() + static_cast<ptrdiff_t>(row + 1) * rows);
  ExpectSame(run(Activations(1, columns, parts, own).prepared), own_out, "a row alone");
  std::vector<float> others = random.values(static_cast<size_t>(11 * columns), 1e4f);
  std::copy(own.begin(), own.end(), others.begin() + 10 * columns);
  const std::vector<float> among = run(Activations(11, columns, parts, others).prepared);
  ExpectSame(std::vector<float>(among.begin() + 10 * rows, among.end()), own_out, "a row among others");
}

void CheckMany(const StorageType& type, int32_t rows, int32_t columns, int32_t num_rows, int32_t parts) {
  Random random(Seed() + 7);
  const RandomMatrix matrix(type, rows, columns, &random);
  const std::vector<float> weights = matrix.Weights();
  const std::vector<float> bias = random.values(static_cast<size_t>(rows));
  const DeviceArray<float> device_bias(bias, Content::kWeights);
  const Activations activations(num_rows, columns, parts, random.values(static_cast<size_t>(num_rows * columns), 3.0f));

  TiledMatrix halved = matrix.tiled();
  const DeviceArray<uint8_t> tiles(HalfTileBytes(halved));
  if (halved.format != TileFormat::kHalf) {
    Expect(LaunchHalve(TestStream(), tiles.data(), halved));
    halved = HalvedMatrix(tiles.data(), halved);
  }
  const std::vector<double> halves = HalvedWeights(halved);
  for (int32_t row = 0; row < rows; row++) {
    double largest = 0;
    for (int32_t k = 0; k < columns; k++) {
      largest = std::max(largest, std::fabs(static_cast<double>(weights[static_cast<size_t>(row * columns + k)])));
    }
    for (int32_t k = 0; k < columns; k++) {
      const auto i = static_cast<size_t>(row * columns + k);
      const double weight = static_cast<double>(weights[i]);
      if (!(std::fabs(halves[i] - weight) <= 0x1p-11 * std::fabs(weight) + 0x1p-23 * largest)) {
        Wrong("weight %zu is %g, not %g", i, halves[i], weight);
      }
    }
  }
  std::vector<double> expected, tolerance;
  Reference(activations.Values(columns), halves, bias, num_rows, columns, &expected, &tolerance);
  std::vector<float> first;
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(static_cast<size_t>(num_rows * rows));
    Expect(LaunchLinearMany(TestStream(), {out.data(), activations.prepared, halved, device_bias.data(), false}));
    const std::vector<float> actual = out.Read();
    ExpectNear(actual, expected, tolerance, "linear");
    if (first.empty()) first = actual;
    ExpectSame(actual, first, "the same once more");
  }

  // The same products in the same order, from the tiles.
  const auto run_batch = [&](const PreparedRows& prepared) {
    const DeviceArray<float> out(static_cast<size_t>(prepared.num_rows * rows));
    Expect(LaunchLinearBatch(TestStream(), {out.data(), prepared, matrix.tiled(), device_bias.data(), false}));
    return out.Read();
  };
  for (Ways ways; ways.Next();) ExpectSame(run_batch(activations.prepared), first, "from tiles");
  const int32_t row = random.below(num_rows);
  const std::vector<float> x = activations.x.Read();
  const std::vector<float> own(x.begin() + static_cast<ptrdiff_t>(row) * columns,
                               x.begin() + static_cast<ptrdiff_t>(row + 1) * columns);
  ExpectSame(run_batch(Activations(1, columns, parts, own).prepared),
             std::vector<float>(first.begin() + static_cast<ptrdiff_t>(row) * rows,
                                first.begin() + static_cast<ptrdiff_t>(row + 1) * rows),
             "a row alone");
}

// Added to what is there: as LaunchAdd afterwards.
void CheckAdd(const StorageType& type, int32_t rows, int32_t columns, int32_t num_rows) {
  Random random(Seed() + 9);
  const RandomMatrix matrix(type, rows, columns, &random);
  const auto count = static_cast<size_t>(num_rows * rows);
  const std::vector<float> residual = random.values(count);
  const DeviceArray<float> device_bias(random.values(static_cast<size_t>(rows)), Content::kWeights);
  const Activations activations(num_rows, columns, 1, random.values(static_cast<size_t>(num_rows * columns)));
  const auto check = [&](const char* name, const std::function<int(const LinearArgs&)>& launch) {
    for (Ways ways; ways.Next();) {
      const DeviceArray<float> product(count), separate(residual), fused(residual);
      Expect(launch({product.data(), activations.prepared, matrix.tiled(), device_bias.data(), false}));
      Expect(LaunchAdd(TestStream(), Limits(), separate.data(), product.data(), static_cast<int64_t>(count)));
      Expect(launch({fused.data(), activations.prepared, matrix.tiled(), device_bias.data(), true}));
      ExpectSame(fused.Read(), separate.Read(), name);
    }
  };
  check("few", [](const LinearArgs& args) { return LaunchLinear(TestStream(), Limits(), FewOf(args)); });
  check("batch", [](const LinearArgs& args) { return LaunchLinearBatch(TestStream(), args); });
  if (matrix.tiled().format == TileFormat::kHalf) {
    check("many", [](const LinearArgs& args) { return LaunchLinearMany(TestStream(), args); });
  }
}

}  // namespace

void CheckLinear() {
  for (const auto& [rows, columns, parts] : {std::array{1, 40, 1}, {13, 256, 1}, {9, 600, 2}}) {
    Case("prepare " + std::to_string(rows) + " rows of " + std::to_string(columns),
         [&] { CheckPrepare(rows, columns, parts); });
  }
  for (const StorageType& type : StorageTypes()) {
    const int32_t unit = type.dtype == kernels::DType::kInt4G128  ? 128
                         : type.dtype == kernels::DType::kInt4G64 ? 64
                                                                  : kernels::dtype_traits(type.dtype).block_size;
    const int32_t odd = unit == 1 ? 331 : unit < 256 ? 3 * 128 : 512;  // columns
    const bool exact = type.dtype != kernels::DType::kF32 && type.dtype != kernels::DType::kBF16;
    const std::string name = type.name;
    Case(name + " embedding", [&] { CheckEmbed(type, 37, odd, exact); });
    Case(name + " linear, 1 row", [&] { CheckFew(type, 50, odd, 1, 1, false); });
    Case(name + " linear, 13 rows", [&] { CheckFew(type, 21, std::max(unit, 32), 13, 1, true); });
    Case(name + " linear, 29 rows of two parts", [&] { CheckFew(type, 33, odd, 29, 2, true); });
    Case(name + " linear, 37 rows", [&] { CheckMany(type, 35, odd, 37, 1); });
    Case(name + " linear, 75 rows", [&] { CheckMany(type, 19, std::max(unit, 32), 75, 1); });
  }
  const StorageType& f32 = StorageTypes()[0];
  const StorageType& int4 = StorageTypes()[4];
  Case("f32 linear, long rows", [&] { CheckFew(f32, 16, 2500, 3, 2, false); });
  Case("int4 linear, several turns", [&] { CheckFew(int4, 200, 2048 + 32, 2, 1, false); });
  Case("int4 linear, 150 rows of two parts", [&] { CheckMany(int4, 145, 288, 150, 2); });
  Case("int4 linear, 64 rows", [&] { CheckMany(int4, 64, 256, 64, 1); });
  Case("f32 linear, 66 rows", [&] { CheckMany(f32, 70, 70, 66, 2); });
  Case("f32 linear added", [&] { CheckAdd(f32, 40, 300, 9); });
  Case("int4 linear added", [&] { CheckAdd(int4, 40, 288, 9); });
}

}  // namespace engine::cuda::test
