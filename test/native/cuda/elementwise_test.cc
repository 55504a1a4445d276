// Norms, rotation, pointwise functions and chosen rows.
#include <array>
#include <cmath>
#include <string>

#include "check.h"
#include "device.h"
#include "kernels/cpu/isa.h"

namespace engine::cuda::test {
namespace {

constexpr kernels::Part kAll = {0, 1};

using Values = std::vector<float>;

// Values of every magnitude, both signs, with the ends of functions.
Values Extremes(size_t count, Random* random) {
  Values values = random->values(count, 8.0f);
  const float special[] = {0.0f,  -0.0f,  100.0f,   -100.0f,   1e-30f, -1e-30f,
                           87.0f, -88.0f, INFINITY, -INFINITY, NAN,    1e30f};
  for (size_t i = 0; i < count && i < std::size(special); i++) values[i] = special[i];
  return values;
}

void CheckNorm(int32_t num_rows, int32_t columns, bool layer_norm, bool biased) {
  Random random(Seed() + 11);
  const auto count = static_cast<size_t>(num_rows * columns);
  Values x = random.values(count, 5.0f);
  for (float& value : x) value += 2.0f;
  const Values weight = random.values(static_cast<size_t>(columns));
  const Values bias = random.values(static_cast<size_t>(columns));
  constexpr float kEps = 1e-5f;
  std::vector<double> expected, tolerance;
  for (int32_t row = 0; row < num_rows; row++) {
    const float* from = x.data() + row * columns;
    double mean = 0, squares = 0;
    for (int32_t i = 0; layer_norm && i < columns; i++) mean += static_cast<double>(from[i]) / columns;
    for (int32_t i = 0; i < columns; i++) squares += std::pow(static_cast<double>(from[i]) - mean, 2);
    const double factor = 1 / std::sqrt(squares / columns + static_cast<double>(kEps));
    for (int32_t i = 0; i < columns; i++) {
      const auto at = static_cast<size_t>(i);
      const double scaled = (static_cast<double>(from[i]) - mean) * factor * static_cast<double>(weight[at]);
      expected.push_back(scaled + (biased ? static_cast<double>(bias[at]) : 0.0));
      tolerance.push_back(2e-6 * (std::fabs(scaled) + std::fabs(expected.back()) + factor));
    }
  }
  const DeviceArray<float> device_x(x), device_weight(weight, Content::kWeights), device_bias(bias, Content::kWeights);
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(count);
    const NormArgs args = {
        out.data(), device_x.data(), device_weight.data(), biased ? device_bias.data() : nullptr, num_rows, columns,
        kEps};
    Expect(layer_norm ? LaunchLayerNorm(TestStream(), args) : LaunchRmsNorm(TestStream(), args));
    ExpectNear(out.Read(), expected, tolerance, "norm");
    // In place.
    const DeviceArray<float> own(x);
    NormArgs in_place = args;
    in_place.out = own.data();
    in_place.x = own.data();
    Expect(layer_norm ? LaunchLayerNorm(TestStream(), in_place) : LaunchRmsNorm(TestStream(), in_place));
    ExpectSame(own.Read(), out.Read(), "in place");
  }
}

void CheckRope(int32_t num_rows, int32_t num_heads, int32_t head_dim, int32_t num_pairs, bool interleaved) {
  Random random(Seed() + 13);
  constexpr int32_t kContext = 40;
  const int32_t width = num_heads * head_dim;
  const Values x = random.values(static_cast<size_t>(num_rows * width));
  const Values cos = random.values(static_cast<size_t>(kContext * num_pairs));
  const Values sin = random.values(static_cast<size_t>(kContext * num_pairs));
  std::vector<int32_t> positions(static_cast<size_t>(num_rows));
  for (int32_t& position : positions) position = random.below(kContext);
  Values expected = x;
  kernels::kernels_scalar.rope(
      {expected.data(), positions.data(), num_rows, width, head_dim, interleaved, {cos.data(), sin.data(), num_pairs}},
      kAll);
  const DeviceArray<float> device_cos(cos, Content::kWeights), device_sin(sin, Content::kWeights);
  const DeviceArray<int32_t> device_positions(positions);
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> own(x);
    Expect(LaunchRope(TestStream(), {own.data(), device_positions.data(), device_cos.data(), device_sin.data(),
                                     num_rows, width, head_dim, num_pairs, interleaved}));
    ExpectSame(own.Read(), expected, "rope");
  }
}

void CheckPointwise(int64_t count) {
  Random random(Seed() + 19);
  const auto size = static_cast<size_t>(count);
  const Values x = Extremes(size, &random);
  const Values y = random.values(size, 4.0f);
  const DeviceArray<float> device_x(x), device_y(y);
  Values silu(size), gelu(size), tanh(size), sum = x;
  const kernels::Kernels& scalar = kernels::kernels_scalar;
  scalar.silu_mul(silu.data(), x.data(), y.data(), count, kAll);
  scalar.gelu(gelu.data(), x.data(), count, false, kAll);
  scalar.gelu(tanh.data(), x.data(), count, true, kAll);
  scalar.add(sum.data(), y.data(), count, kAll);
  // NaN is NaN, whatever its bits.
  const auto plain = [](Values values) {
    for (float& value : values) value = std::isnan(value) ? NAN : value;
    return values;
  };
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(size);
    Expect(LaunchSiluMul(TestStream(), Limits(), out.data(), device_x.data(), device_y.data(), count));
    ExpectSame(plain(out.Read()), plain(silu), "silu");
    Expect(LaunchGelu(TestStream(), Limits(), out.data(), device_x.data(), count, false));
    ExpectSame(plain(out.Read()), plain(gelu), "gelu");
    Expect(LaunchGelu(TestStream(), Limits(), out.data(), device_x.data(), count, true));
    ExpectSame(plain(out.Read()), plain(tanh), "gelu by tanh");
    const DeviceArray<float> own(x);
    Expect(LaunchAdd(TestStream(), Limits(), own.data(), device_y.data(), count));
    ExpectSame(plain(own.Read()), plain(sum), "add");
  }
}

void CheckSelectRows() {
  Random random(Seed() + 23);
  constexpr int32_t kWidth = 300;
  const Values x = random.values(9 * kWidth);
  const std::vector<int32_t> rows = {8, 0, 3, 3};
  Values expected;
  for (const int32_t row : rows)
    expected.insert(expected.end(), x.begin() + row * kWidth, x.begin() + (row + 1) * kWidth);
  const DeviceArray<float> device_x(x);
  const DeviceArray<int32_t> device_rows(rows);
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(expected.size());
    Expect(LaunchSelectRows(TestStream(), {out.data(), device_x.data(), device_rows.data(), 4, kWidth}));
    ExpectSame(out.Read(), expected, "rows");
  }
}

}  // namespace

void CheckElementwise() {
  for (const auto& [rows, columns] : {std::array{3, 4096}, {1, 513}, {19, 64}, {7, 100}, {2, 1}}) {
    const std::string size = std::to_string(rows) + " rows of " + std::to_string(columns);
    Case("rms norm, " + size, [&] { CheckNorm(rows, columns, false, false); });
    Case("layer norm, " + size, [&] { CheckNorm(rows, columns, true, rows != 7); });
  }
  Case("rope, halves", [] { CheckRope(5, 3, 64, 32, false); });
  Case("rope, interleaved, part of a head", [] { CheckRope(7, 2, 80, 20, true); });
  Case("pointwise functions of 5000 values", [] { CheckPointwise(5000); });
  Case("pointwise functions of 3 values", [] { CheckPointwise(3); });
  Case("chosen rows", [] { CheckSelectRows(); });
}

}  // namespace engine::cuda::test
