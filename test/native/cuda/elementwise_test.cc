// Norms, rotation, pointwise functions, chosen rows, and launches that do several of these at once.
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
    const HeadRotation rotation = {device_positions.data(), device_cos.data(), device_sin.data(), num_pairs,
                                   interleaved};
    Expect(LaunchRope(TestStream(), {own.data(), rotation, num_rows, width, head_dim}));
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

// --- Launches that do what several do one after another, bit for bit -------------------------------------------------

// What LaunchPrepare makes of its source, and of rows that other launches made of it.
void CheckPrepare(int32_t num_rows, int32_t columns, int32_t parts, ActivationOrder order) {
  Random random(Seed() + 29);
  const auto count = static_cast<size_t>(num_rows * columns);
  Values x = random.values(count, 3.0f), extremes = random.values(count, 8.0f);
  if (num_rows > 2) {
    // Rows of zeros, with infinities, and too small for any half.
    for (int32_t i = 0; i < columns; i++) {
      x[static_cast<size_t>(i)] = 0.0f;
      x[static_cast<size_t>(columns + i)] *= 1e-37f;
    }
    extremes = Extremes(count, &random);
  }
  const DeviceArray<float> device_x(x), gate(extremes), up(random.values(count, 2.0f)),
      norm(random.values(static_cast<size_t>(columns)));
  constexpr float kEps = 1e-5f;
  const PreparedBytes bytes = PreparedBytesOf(num_rows, columns, parts);
  struct Prepared {
    std::vector<uint16_t> halves;
    Values sums, scales;
  };
  const auto prepare = [&](const RowSource& source) {
    const DeviceArray<uint16_t> halves(bytes.halves / sizeof(uint16_t));
    const DeviceArray<float> sums(bytes.sums / sizeof(float)), scales(bytes.scales / sizeof(float));
    const PreparedRows out = {halves.data(), sums.data(), scales.data(), num_rows, RoundUp(columns, kColumnUnit),
                              parts,         order};
    Expect(LaunchPrepare(TestStream(), {out, source}));
    return Prepared{halves.Read(), sums.Read(), scales.Read()};
  };
  const auto expect = [&](const Prepared& actual, const Prepared& expected, const char* what) {
    ExpectSame(actual.halves, expected.halves, what);
    ExpectSame(actual.sums, expected.sums, what);
    ExpectSame(actual.scales, expected.scales, what);
  };
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> normed(count), product(count);
    Expect(
        LaunchRmsNorm(TestStream(), {normed.data(), device_x.data(), norm.data(), nullptr, num_rows, columns, kEps}));
    Expect(LaunchSiluMul(TestStream(), Limits(), product.data(), gate.data(), up.data(), static_cast<int64_t>(count)));
    expect(prepare({device_x.data(), norm.data(), nullptr, kEps, columns}),
           prepare({normed.data(), nullptr, nullptr, 0.0f, columns}), "rows of a norm");
    expect(prepare({gate.data(), nullptr, up.data(), 0.0f, columns}),
           prepare({product.data(), nullptr, nullptr, 0.0f, columns}), "rows of gates");
  }
}

struct HeadsCase {
  int32_t num_heads, num_kv_heads, head_dim, num_pairs;
  bool interleaved, q_norm, k_norm, in_place;
  KvDType dtype;
};

void CheckHeads(const HeadsCase& c) {
  Random random(Seed() + 31);
  constexpr int32_t kRows = 5, kContext = 40, kBlockSize = 4, kBlocks = 6;
  constexpr float kEps = 1e-6f;
  const int32_t q_width = c.num_heads * c.head_dim, kv_width = c.num_kv_heads * c.head_dim;
  const Values q = random.values(static_cast<size_t>(kRows * q_width), 3.0f);
  Values k = random.values(static_cast<size_t>(kRows * kv_width), 3.0f);
  k[static_cast<size_t>(kv_width)] = INFINITY;
  const DeviceArray<float> v(random.values(k.size(), 3.0f));
  const auto angles = static_cast<size_t>(kContext * c.num_pairs);
  const DeviceArray<float> cos(random.values(angles)), sin(random.values(angles));
  const DeviceArray<float> q_norm(random.values(static_cast<size_t>(c.head_dim)));
  const DeviceArray<float> k_norm(random.values(static_cast<size_t>(c.head_dim)));
  const DeviceArray<int32_t> positions(std::vector<int32_t>{0, 39, 7, 8, 20}),
      slots(std::vector<int32_t>{22, 0, -1, 9, 3});
  const size_t bytes = kBlocks * static_cast<size_t>(c.num_kv_heads) * KvBlockBytes(c.dtype, c.head_dim, kBlockSize);
  const HeadRotation rotation = {positions.data(), cos.data(), sin.data(), c.num_pairs, c.interleaved};

  for (Ways ways; ways.Next();) {
    const auto cache_in = [&](const DeviceArray<uint8_t>& keys, const DeviceArray<uint8_t>& values) {
      return KvCache{keys.data(), values.data(), c.dtype, c.num_kv_heads, c.head_dim, kBlockSize};
    };
    // One after another.
    const DeviceArray<uint8_t> keys(std::vector<uint8_t>(bytes, 3)), values(std::vector<uint8_t>(bytes, 3));
    const DeviceArray<float> expected_q(q), expected_k(k);
    const auto do_each = [&](const DeviceArray<float>& x, const DeviceArray<float>* norm, int32_t width) {
      if (norm != nullptr) {
        Expect(LaunchRmsNorm(
            TestStream(), {x.data(), x.data(), norm->data(), nullptr, kRows * width / c.head_dim, c.head_dim, kEps}));
      }
      if (c.num_pairs == 0) return;
      const HeadRotation rotation = {positions.data(), cos.data(), sin.data(), c.num_pairs, c.interleaved};
      Expect(LaunchRope(TestStream(), {x.data(), rotation, kRows, width, c.head_dim}));
    };
    do_each(expected_q, c.q_norm ? &q_norm : nullptr, q_width);
    do_each(expected_k, c.k_norm ? &k_norm : nullptr, kv_width);
    Expect(LaunchWriteKv(TestStream(), {expected_k.data(), v.data(), slots.data(), kRows, cache_in(keys, values)}));

    const DeviceArray<uint8_t> own_keys(std::vector<uint8_t>(bytes, 3)), own_values(std::vector<uint8_t>(bytes, 3));
    const DeviceArray<float> own_q(q), own_k(k), out(q.size());
    const DeviceArray<float>& turned = c.in_place ? own_q : out;
    Expect(LaunchHeads(TestStream(), {.out = turned.data(),
                                      .q = own_q.data(),
                                      .k = own_k.data(),
                                      .v = v.data(),
                                      .q_norm = c.q_norm ? q_norm.data() : nullptr,
                                      .k_norm = c.k_norm ? k_norm.data() : nullptr,
                                      .eps = kEps,
                                      .rotation = rotation,
                                      .slot_mapping = slots.data(),
                                      .num_rows = kRows,
                                      .num_heads = c.num_heads,
                                      .cache = cache_in(own_keys, own_values)}));
    ExpectSame(turned.Read(), expected_q.Read(), "queries");
    ExpectSame(own_keys.Read(), keys.Read(), "keys");
    ExpectSame(own_values.Read(), values.Read(), "values");
    ExpectSame(own_k.Read(), k, "k as it was");
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
  for (const ActivationOrder order : {ActivationOrder::kLanes, ActivationOrder::kCores}) {
    const std::string name = order == ActivationOrder::kLanes ? "rows prepared for lanes" : "rows prepared for cores";
    Case(name + ", 9 of 300", [&] { CheckPrepare(9, 300, 2, order); });
    Case(name + ", 1 of 4096", [&] { CheckPrepare(1, 4096, 1, order); });
  }
  Case("heads, halves", [] { CheckHeads({4, 2, 64, 32, false, false, false, true, KvDType::kF16}); });
  Case("heads, normalised", [] { CheckHeads({3, 1, 128, 64, false, true, true, false, KvDType::kF32}); });
  Case("heads, 8-bit cache", [] { CheckHeads({4, 2, 40, 20, true, false, true, false, KvDType::kInt8}); });
  Case("heads, part of them turned", [] { CheckHeads({2, 2, 80, 10, false, true, false, true, KvDType::kInt8}); });
  Case("heads, not turned", [] { CheckHeads({2, 1, 256, 0, false, true, true, true, KvDType::kF16}); });
}

}  // namespace engine::cuda::test
