// What LaunchLinear does at once, bit for bit what separate launches do: rows that blocks prepare for themselves,
// matrices that share a launch, and what becomes of their products.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "check.h"
#include "device.h"
#include "matrices.h"

namespace engine::cuda::test {
namespace {

using Values = std::vector<float>;

enum class Source { kX, kNorm, kUp };

struct Heads {
  int32_t head_dim, num_heads, num_kv_heads, num_pairs;
  bool interleaved;
  KvDType dtype;
};

struct Setup {
  std::vector<const StorageType*> types;  // of the parts
  std::vector<int32_t> heights;
  int32_t columns, num_rows, parts;
  bool biased;
  Source source;
  LinearEnd end;
  Heads heads = {};
  std::vector<HeadRole> roles = {};
};

const StorageType& Type(const char* name) {
  for (const StorageType& type : StorageTypes()) {
    if (type.name == std::string(name)) return type;
  }
  Wrong("no type %s", name);
  return StorageTypes()[0];
}

constexpr int32_t kContext = 48;
constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumBlocks = kContext / kBlockSize;

// Inputs of a launch, and what it writes.
class Products {
 public:
  struct Outputs {
    std::vector<Values> out;  // of each part
    std::vector<uint8_t> keys, values;
  };

  Products(const Setup& setup, Random* random)
      : setup_(setup),
        x_(random->values(Count(setup.columns), 3.0f)),
        up_(random->values(Count(setup.columns), 2.0f)),
        norm_(random->values(static_cast<size_t>(setup.columns), 1.5f)),
        cos_(random->values(static_cast<size_t>(kContext * std::max(setup.heads.num_pairs, 1)))),
        sin_(random->values(static_cast<size_t>(kContext * std::max(setup.heads.num_pairs, 1)))) {
    for (size_t p = 0; p < setup.heights.size(); p++) {
      const int32_t height = setup.heights[p];
      matrices_.push_back(std::make_unique<RandomMatrix>(*setup.types[p], height, setup.columns, random));
      biases_.push_back(std::make_unique<DeviceArray<float>>(random->values(static_cast<size_t>(height))));
      before_.push_back(random->values(Count(height)));
    }
    for (int32_t row = 0; row < setup.num_rows; row++) {
      positions_.push_back(random->below(kContext));
      slots_.push_back(row % 7 == 2 ? -1 : row % kContext);
    }
    if (setup.num_rows > 3) x_[static_cast<size_t>(3 * setup.columns)] = INFINITY;  // all of row 3 becomes NaN
  }

  // The inputs of one row alone.
  Products(const Products& all, int32_t row) : Products(all) {
    const auto cut = [row](Values& values, size_t width) {
      values = Values(values.begin() + static_cast<ptrdiff_t>(row * width),
                      values.begin() + static_cast<ptrdiff_t>((row + 1) * width));
    };
    setup_.num_rows = 1;
    cut(x_, static_cast<size_t>(setup_.columns));
    cut(up_, static_cast<size_t>(setup_.columns));
    for (size_t p = 0; p < before_.size(); p++) cut(before_[p], static_cast<size_t>(setup_.heights[p]));
    positions_ = {positions_[static_cast<size_t>(row)]};
    slots_ = {slots_[static_cast<size_t>(row)]};
  }

  Outputs Separately() const {
    const Device device(*this);
    const RowSource source = device.Source(*this);
    const DeviceArray<float> made(Count(setup_.columns));
    const float* rows = source.x;
    if (setup_.source == Source::kNorm) {
      Expect(LaunchRmsNorm(TestStream(),
                           {made.data(), source.x, source.norm, nullptr, setup_.num_rows, setup_.columns, source.eps}));
      rows = made.data();
    } else if (setup_.source == Source::kUp) {
      Expect(LaunchSiluMul(TestStream(), Limits(), made.data(), source.x, source.up,
                           static_cast<int64_t>(Count(setup_.columns))));
      rows = made.data();
    }
    Expect(LaunchPrepare(TestStream(), {device.prepared, {rows, nullptr, nullptr, 0.0f, setup_.columns}}));

    std::vector<std::unique_ptr<DeviceArray<float>>> products;
    for (size_t p = 0; p < matrices_.size(); p++) {
      products.push_back(std::make_unique<DeviceArray<float>>(Count(setup_.heights[p])));
      Expect(LaunchLinear(TestStream(), Limits(),
                          FewOf({products[p]->data(), device.prepared, matrices_[p]->tiled(), Bias(p), false})));
    }
    if (setup_.end == LinearEnd::kStore) return device.Read([&](size_t p) { return products[p]->Read(); });
    if (setup_.end == LinearEnd::kAdd) {
      for (size_t p = 0; p < matrices_.size(); p++) {
        Expect(LaunchAdd(TestStream(), Limits(), device.out[p]->data(), products[p]->data(),
                         static_cast<int64_t>(Count(setup_.heights[p]))));
      }
      return device.Read([&](size_t p) { return device.out[p]->Read(); });
    }
    if (setup_.end == LinearEnd::kSiluMul) {
      Expect(LaunchSiluMul(TestStream(), Limits(), device.out[0]->data(), products[0]->data(), products[1]->data(),
                           static_cast<int64_t>(Count(setup_.heights[0]))));
      return device.Read([&](size_t p) { return device.out[p]->Read(); });
    }
    // Keys alone are written as values too, where nobody looks, and the other way round.
    const float *k = nullptr, *v = nullptr;
    for (size_t p = 0; p < matrices_.size(); p++) {
      if (setup_.roles[p] == HeadRole::kK) k = products[p]->data();
      if (setup_.roles[p] == HeadRole::kV) v = products[p]->data();
      if (setup_.roles[p] == HeadRole::kV || setup_.heads.num_pairs == 0) continue;
      const HeadRotation rotation = {device.positions.data(), device.cos.data(), device.sin.data(),
                                     setup_.heads.num_pairs, setup_.heads.interleaved};
      Expect(LaunchRope(TestStream(),
                        {products[p]->data(), rotation, setup_.num_rows, setup_.heights[p], setup_.heads.head_dim}));
    }
    if (k != nullptr || v != nullptr) {
      const DeviceArray<uint8_t> unseen(CacheBytes());
      KvCache cache = device.Cache(*this);
      if (k == nullptr) cache.keys = unseen.data();
      if (v == nullptr) cache.values = unseen.data();
      Expect(LaunchWriteKv(TestStream(),
                           {k == nullptr ? v : k, v == nullptr ? k : v, device.slots.data(), setup_.num_rows, cache}));
    }
    return device.Read(
        [&](size_t p) { return setup_.roles[p] == HeadRole::kQ ? products[p]->Read() : device.out[p]->Read(); });
  }

  Outputs AtOnce(bool in_block) const {
    const Device device(*this);
    LinearFewArgs args = {};
    args.x = device.prepared;
    if (in_block) {
      args.source = device.Source(*this);
      args.x.halves = nullptr;
      args.x.sums = args.x.scales = nullptr;
    } else {
      Expect(LaunchPrepare(TestStream(), {device.prepared, device.Source(*this)}));
    }
    args.num_parts = static_cast<int32_t>(matrices_.size());
    args.end = setup_.end;
    for (size_t p = 0; p < matrices_.size(); p++) {
      args.parts[p] = {matrices_[p]->tiled(), Bias(p), device.out[p]->data(), HeadRole::kQ};
      if (setup_.end != LinearEnd::kHeads) continue;
      args.parts[p].role = setup_.roles[p];
      if (setup_.roles[p] != HeadRole::kQ) args.parts[p].out = nullptr;
    }
    if (setup_.end == LinearEnd::kSiluMul) args.parts[1].out = nullptr;
    if (setup_.end == LinearEnd::kHeads) {
      args.rotation = Rotation(device);
      args.slot_mapping = device.slots.data();
      args.cache = device.Cache(*this);
      if (!CanEndWithHeads(args.rotation, args.cache)) Wrong("heads of this shape were to be possible");
    }
    Expect(LaunchLinear(TestStream(), Limits(), args));
    return device.Read([&](size_t p) { return device.out[p]->Read(); });
  }

 private:
  struct Device {
    explicit Device(const Products& all)
        : x(all.x_),
          up(all.up_),
          norm(all.norm_),
          cos(all.cos_),
          sin(all.sin_),
          positions(all.positions_),
          slots(all.slots_),
          keys(std::vector<uint8_t>(all.CacheBytes(), 0x5a)),
          values(std::vector<uint8_t>(all.CacheBytes(), 0xa5)),
          halves(all.Bytes().halves / sizeof(uint16_t)),
          sums(all.Bytes().sums / sizeof(float)),
          scales(all.Bytes().scales / sizeof(float)),
          prepared{halves.data(),
                   sums.data(),
                   scales.data(),
                   all.setup_.num_rows,
                   RoundUp(all.setup_.columns, kColumnUnit),
                   all.setup_.parts,
                   ActivationOrder::kLanes} {
      for (const Values& before : all.before_) out.push_back(std::make_unique<DeviceArray<float>>(before));
    }

    RowSource Source(const Products& all) const {
      RowSource source = {x.data(), nullptr, nullptr, 1e-5f, all.setup_.columns};
      if (all.setup_.source == Source::kNorm) source.norm = norm.data();
      if (all.setup_.source == Source::kUp) source.up = up.data();
      return source;
    }
    KvCache Cache(const Products& all) const {
      const Heads& heads = all.setup_.heads;
      return {keys.data(), values.data(), heads.dtype, heads.num_kv_heads, heads.head_dim, kBlockSize};
    }
    template <class Out>
    Outputs Read(Out out_of) const {
      Outputs outputs = {{}, keys.Read(), values.Read()};
      for (size_t p = 0; p < out.size(); p++) outputs.out.push_back(out_of(p));
      return outputs;
    }

    DeviceArray<float> x, up, norm, cos, sin;
    DeviceArray<int32_t> positions, slots;
    DeviceArray<uint8_t> keys, values;
    DeviceArray<uint16_t> halves;
    DeviceArray<float> sums, scales;
    PreparedRows prepared;
    std::vector<std::unique_ptr<DeviceArray<float>>> out;  // as it was before
  };

  Products(const Products&) = default;

  size_t Count(int32_t width) const { return static_cast<size_t>(setup_.num_rows * width); }
  PreparedBytes Bytes() const { return PreparedBytesOf(setup_.num_rows, setup_.columns, setup_.parts); }
  size_t CacheBytes() const {
    if (setup_.end != LinearEnd::kHeads) return 0;
    return KvBlockBytes(setup_.heads.dtype, setup_.heads.head_dim, kBlockSize) *
           static_cast<size_t>(kNumBlocks * setup_.heads.num_kv_heads);
  }
  const float* Bias(size_t p) const { return setup_.biased ? biases_[p]->data() : nullptr; }
  HeadRotation Rotation(const Device& device) const {
    return {device.positions.data(), device.cos.data(), device.sin.data(), setup_.heads.num_pairs,
            setup_.heads.interleaved};
  }

  Setup setup_;
  Values x_, up_, norm_, cos_, sin_;
  std::vector<int32_t> positions_, slots_;
  std::vector<std::shared_ptr<RandomMatrix>> matrices_;
  std::vector<std::shared_ptr<DeviceArray<float>>> biases_;
  std::vector<Values> before_;
};

void ExpectSameOutputs(const Products::Outputs& actual, const Products::Outputs& expected, const char* what) {
  for (size_t p = 0; p < expected.out.size(); p++) ExpectSame(actual.out[p], expected.out[p], what);
  ExpectSame(actual.keys, expected.keys, "keys");
  ExpectSame(actual.values, expected.values, "values");
}

void Check(const Setup& setup) {
  Random random(Seed() + 37);
  const Products all(setup, &random);
  const Products::Outputs expected = all.Separately();
  for (Ways ways; ways.Next();) {
    ExpectSameOutputs(all.AtOnce(false), expected, "rows prepared before");
    ExpectSameOutputs(all.AtOnce(true), expected, "rows prepared in blocks");
  }
  const int32_t row = random.below(setup.num_rows);
  const Products alone(all, row);
  const Products::Outputs own = alone.AtOnce(true);
  ExpectSameOutputs(own, alone.Separately(), "a row alone");
  for (size_t p = 0; p < own.out.size(); p++) {
    const auto height = static_cast<ptrdiff_t>(setup.heights[p]);
    const Values& among = expected.out[p];
    ExpectSame(own.out[p], Values(among.begin() + row * height, among.begin() + (row + 1) * height),
               "a row among others");
  }
}

// The highest product of each block's rows, joined, is the highest of all; so are those of the blocks' own rows.
void CheckHighest(const StorageType& type, int32_t height, int32_t num_rows, bool biased) {
  Random random(Seed() + 41);
  const int32_t columns = 512;
  const RandomMatrix matrix(type, height, columns, &random);
  Values bias = random.values(static_cast<size_t>(height));
  // Rows of equal weights cannot be had; biases that swallow the product make equal values, and others none at all.
  for (size_t i = 0; i < bias.size(); i++) {
    if (i % 5 == 1) bias[i] = 1e30f;
    if (i % 7 == 2) bias[i] = NAN;
    if (i % 7 == 3 || (height < 100 && i < 64)) bias[i] = -INFINITY;  // or all that the first block has
  }
  Values x = random.values(static_cast<size_t>(num_rows * columns));
  if (num_rows > 1) x[static_cast<size_t>(columns)] = INFINITY;  // nothing of row 1 is above −∞
  const DeviceArray<float> device_bias(bias), device_x(x);
  LinearFewArgs args = FewOf({nullptr, {}, matrix.tiled(), biased ? device_bias.data() : nullptr, false});
  args.x.num_rows = num_rows;
  args.x.columns = columns;
  args.x.parts = 1;
  args.source = {device_x.data(), nullptr, nullptr, 0.0f, columns};
  for (Ways ways; ways.Next();) {
    const DeviceArray<float> out(static_cast<size_t>(num_rows * height));
    args.parts[0].out = out.data();
    args.highest = reinterpret_cast<Highest*>(out.data());  // only whether there are any counts for the shape
    const int32_t blocks = ShapeOfLinear(Limits(), args).grid_x;
    const DeviceArray<Highest> highest(static_cast<size_t>(num_rows * blocks));
    args.highest = highest.data();
    Expect(LaunchLinear(TestStream(), Limits(), args));
    const Values values = out.Read();
    const std::vector<Highest> found = highest.Read();
    const int32_t at_once = LinearTilingOf(Limits(), args).row_tiles;
    for (int32_t row = 0; row < num_rows; row++) {
      for (int32_t block = 0; block < blocks; block++) {
        Highest best = {0.0f, -1};
        for (int32_t i = 0; i < height; i++) {
          if (i / (kTileRows * at_once) % blocks != block) continue;
          const float value = values[static_cast<size_t>(row * height + i)];
          if (value > -INFINITY && (best.id < 0 || value > best.value)) best = {value, i};
        }
        const Highest& own = found[static_cast<size_t>(row * blocks + block)];
        if (own.id != best.id || (best.id >= 0 && own.value != best.value)) {
          Wrong("row %d, block %d: %g at %d, not %g at %d", row, block, static_cast<double>(own.value), own.id,
                static_cast<double>(best.value), best.id);
        }
      }
    }
  }
}

constexpr const char* kSourceNames[] = {"x", "norm", "silu"};
constexpr const char* kEndNames[] = {"stored", "added", "silu", "heads"};

std::string NameOf(const Setup& setup) {
  std::string name = "few rows: " + std::to_string(setup.num_rows) + " of " +
                     kSourceNames[static_cast<int>(setup.source)] + " in " + std::to_string(setup.parts) +
                     " parts, columns " + std::to_string(setup.columns) + ", ";
  for (size_t p = 0; p < setup.heights.size(); p++) {
    name += std::string(setup.types[p]->name) + " " + std::to_string(setup.heights[p]) + ", ";
  }
  return name + kEndNames[static_cast<int>(setup.end)];
}

// q, k and v, or those of them that `roles` names.
Setup HeadSetup(const char* type, const Heads& heads, int32_t columns, int32_t num_rows, Source source,
                std::vector<HeadRole> roles = {HeadRole::kQ, HeadRole::kK, HeadRole::kV}) {
  Setup setup = {{}, {}, columns, num_rows, 1, num_rows % 2 == 1, source, LinearEnd::kHeads, heads, roles};
  for (const HeadRole role : roles) {
    setup.types.push_back(&Type(type));
    setup.heights.push_back(heads.head_dim * (role == HeadRole::kQ ? heads.num_heads : heads.num_kv_heads));
  }
  return setup;
}

}  // namespace

void CheckLinearFew() {
  const StorageType &f32 = Type("f32"), &f16 = Type("f16"), &bf16 = Type("bf16"), &int8 = Type("int8"),
                    &int4 = Type("int4"), &q4_0 = Type("q4_0"), &q4_k = Type("q4_k"), &q2_k = Type("q2_k"),
                    &q6_k = Type("q6_k");
  const Setup setups[] = {
      {{&int4}, {50}, 2048 + 32, 1, 1, true, Source::kX, LinearEnd::kStore},
      {{&q2_k}, {33}, 512, 9, 2, false, Source::kUp, LinearEnd::kStore},
      {{&f32, &bf16}, {21, 130}, 331, 5, 2, true, Source::kNorm, LinearEnd::kStore},
      {{&int4, &int4, &int4}, {65, 16, 31}, 288, 32, 1, false, Source::kX, LinearEnd::kStore},
      {{&int8}, {70}, 544, 3, 1, false, Source::kUp, LinearEnd::kAdd},
      {{&f16}, {17}, 100, 17, 1, true, Source::kX, LinearEnd::kAdd},
      {{&q4_k, &q4_k}, {40, 200}, 1024, 2, 2, true, Source::kNorm, LinearEnd::kAdd},
      {{&int4, &int4}, {144, 144}, 1056, 1, 1, false, Source::kNorm, LinearEnd::kSiluMul},
      {{&f32, &f32}, {49, 49}, 600, 8, 2, true, Source::kNorm, LinearEnd::kSiluMul},
      {{&q4_0, &q4_0}, {33, 33}, 256, 32, 1, true, Source::kX, LinearEnd::kSiluMul},
      {{&q6_k, &q6_k}, {80, 80}, 512, 13, 1, false, Source::kX, LinearEnd::kSiluMul},
      HeadSetup("int4", {32, 5, 2, 16, false, KvDType::kF16}, 288, 1, Source::kNorm),
      HeadSetup("q4_k", {64, 4, 1, 32, false, KvDType::kF32}, 768, 6, Source::kNorm),
      HeadSetup("f32", {96, 2, 1, 48, false, KvDType::kF16}, 130, 19, Source::kX),
      HeadSetup("int8", {24, 3, 3, 5, true, KvDType::kF16}, 256, 4, Source::kX),
      HeadSetup("bf16", {20, 4, 2, 10, true, KvDType::kF32}, 77, 32, Source::kNorm),
      HeadSetup("q4_1", {40, 2, 1, 0, false, KvDType::kF16}, 288, 3, Source::kNorm),
      HeadSetup("int4", {64, 2, 2, 32, false, KvDType::kF16}, 512, 2, Source::kNorm, {HeadRole::kV, HeadRole::kK}),
      HeadSetup("q6_k", {64, 2, 2, 32, false, KvDType::kF16}, 512, 7, Source::kNorm, {HeadRole::kV}),
      HeadSetup("q6_k", {128, 2, 1, 64, false, KvDType::kF16}, 256, 7, Source::kX, {HeadRole::kQ, HeadRole::kK}),
  };
  for (const Setup& setup : setups) {
    Case(NameOf(setup), [&] { Check(setup); });
  }
  Case("highest of int4, 1 row", [&] { CheckHighest(int4, 500, 1, false); });
  Case("highest of f32, 5 rows, some of them equal", [&] { CheckHighest(f32, 333, 5, true); });
  Case("highest of q6_k, 32 rows, some of them equal", [&] { CheckHighest(q6_k, 90, 32, true); });
}

}  // namespace engine::cuda::test
