// Attention on the matrix unit against float64. Halves round queries and weights, and nothing else counts: with
// u = 2^−11, a score is wrong by at most δ = u · Σ |q · k| · scale, which changes the weight of a position by a factor
// within e^±δ before weights are made to sum to 1; then each weight is rounded by u of itself.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "check.h"
#include "device.h"
#include "kernels/cpu/half.h"

namespace engine::cuda::test {
namespace {

using Values = std::vector<float>;

struct Shape {
  KvDType dtype;
  int32_t num_heads, num_kv_heads, head_dim, block_size, window;
  std::vector<int32_t> context_lens;
  std::vector<int32_t> num_queries;  // of each sequence, its last tokens
  float sharpness = 1.0f;            // scores are about ±5 times that
  float query_scale = 1.0f;          // of queries; keys are divided by it
  int32_t value_bits = 0;            // values are of magnitudes 2^−value_bits … 2^value_bits

  int32_t heads_per_kv() const { return num_heads / num_kv_heads; }
};

// What a cache keeps of a row.
void Store(KvDType dtype, float* row, int32_t count) {
  if (dtype == KvDType::kF16) {
    for (int32_t i = 0; i < count; i++) row[i] = kernels::float_from_f16(kernels::f16_from_float(row[i]));
    return;
  }
  float largest = 0;
  for (int32_t i = 0; i < count; i++) largest = std::max(largest, std::fabs(row[i]));
  for (int32_t i = 0; i < count; i++) row[i] = std::nearbyint(row[i] * (127.0f / largest)) * (largest / 127.0f);
}

// Sequences whose keys and values were written before, in blocks that lie anywhere.
class Batch {
 public:
  Batch(const Shape& shape, Random* random)
      : shape_(shape),
        num_seqs_(static_cast<int32_t>(shape.context_lens.size())),
        max_blocks_(
            CeilDivide(*std::max_element(shape.context_lens.begin(), shape.context_lens.end()), shape.block_size)),
        num_blocks_(num_seqs_ * max_blocks_ + 3) {
    std::vector<int32_t> blocks(static_cast<size_t>(num_blocks_));
    std::iota(blocks.begin(), blocks.end(), 0);
    for (int32_t i = num_blocks_ - 1; i > 0; i--) {
      std::swap(blocks[static_cast<size_t>(i)], blocks[static_cast<size_t>(random->below(i + 1))]);
    }
    block_tables_.assign(static_cast<size_t>(num_seqs_ * max_blocks_), -1);
    for (int32_t s = 0; s < num_seqs_; s++) {
      const int32_t length = shape.context_lens[static_cast<size_t>(s)];
      first_slot_.push_back(slots_.size());
      for (int32_t p = 0; p < length; p++) {
        const auto entry = static_cast<size_t>(s * max_blocks_ + p / shape.block_size);
        block_tables_[entry] = blocks[entry];
        slots_.push_back(blocks[entry] * shape.block_size + p % shape.block_size);
      }
      query_start_.push_back(query_start_.back() + shape.num_queries[static_cast<size_t>(s)]);
    }
    const auto head_dim = static_cast<size_t>(shape.head_dim);
    const size_t row = static_cast<size_t>(shape.num_kv_heads) * head_dim;
    k_ = random->values(slots_.size() * row, 2.0f / shape.query_scale);
    v_ = random->values(slots_.size() * row);
    for (size_t i = 0; i < v_.size(); i += head_dim) {
      const float magnitude = std::ldexp(1.0f, random->below(2 * shape.value_bits + 1) - shape.value_bits);
      for (size_t d = 0; d < head_dim; d++) v_[i + d] *= magnitude;
    }
    q_ = random->values(static_cast<size_t>(num_tokens() * shape.num_heads) * head_dim, 2.0f * shape.query_scale);
  }

  int32_t num_tokens() const { return query_start_.back(); }
  float scale() const { return shape_.sharpness / std::sqrt(static_cast<float>(shape_.head_dim)); }
  std::vector<ManyAttentionTile> Tiles() const { return TilesOf(query_start_, shape_.context_lens); }
  std::vector<ManyAttentionTile> TilesOf(const std::vector<int32_t>& query_start,
                                         const std::vector<int32_t>& context_lens) const {
    const int32_t most = MaxManyAttentionTiles(query_start.back() - query_start[0], shape_.heads_per_kv());
    std::vector<ManyAttentionTile> tiles(static_cast<size_t>(most));
    tiles.resize(
        static_cast<size_t>(MakeManyAttentionTiles(tiles.data(), query_start.data(), context_lens.data(),
                                                   static_cast<int32_t>(context_lens.size()), shape_.heads_per_kv())));
    return tiles;
  }
  const std::vector<int32_t>& query_start() const { return query_start_; }
  Values& q() { return q_; }

  // In float64, of what the cache keeps, and what may be wrong.
  void Expect(std::vector<double>* outputs, std::vector<double>* tolerance) const {
    Values k = k_, v = v_;
    const auto head_dim = static_cast<size_t>(shape_.head_dim);
    for (size_t i = 0; i < k.size(); i += head_dim) {
      Store(shape_.dtype, &k[i], shape_.head_dim);
      Store(shape_.dtype, &v[i], shape_.head_dim);
    }
    outputs->resize(q_.size());
    tolerance->resize(q_.size());
    for (int32_t s = 0; s < num_seqs_; s++) {
      for (int32_t t = query_start_[static_cast<size_t>(s)]; t < query_start_[static_cast<size_t>(s) + 1]; t++) {
        const int32_t end =
            shape_.context_lens[static_cast<size_t>(s)] - (query_start_[static_cast<size_t>(s) + 1] - t) + 1;
        const int32_t begin = shape_.window > 0 ? std::max(0, end - shape_.window) : 0;
        for (int32_t h = 0; h < shape_.num_heads; h++) {
          const size_t row = static_cast<size_t>(t * shape_.num_heads + h) * head_dim;
          const auto at = [&](int32_t p) {
            return ((first_slot_[static_cast<size_t>(s)] + static_cast<size_t>(p)) *
                        static_cast<size_t>(shape_.num_kv_heads) +
                    static_cast<size_t>(h / shape_.heads_per_kv())) *
                   head_dim;
          };
          ExpectRow(&q_[row], k, v, begin, end, at, &(*outputs)[row], &(*tolerance)[row]);
        }
      }
    }
  }

  Values Run(const std::vector<ManyAttentionTile>& tiles) const {
    const size_t bytes = KvBlockBytes(shape_.dtype, shape_.head_dim, shape_.block_size) *
                         static_cast<size_t>(num_blocks_ * shape_.num_kv_heads);
    const DeviceArray<uint8_t> keys(bytes), values(bytes);
    const KvCache cache = {keys.data(),         values.data(),   shape_.dtype,
                           shape_.num_kv_heads, shape_.head_dim, shape_.block_size};
    const DeviceArray<float> k(k_), v(v_), q(q_), out(q_.size());
    const DeviceArray<int32_t> slots(slots_), block_tables(block_tables_);
    const DeviceArray<ManyAttentionTile> device_tiles(tiles);
    test::Expect(
        LaunchWriteKv(TestStream(), {k.data(), v.data(), slots.data(), static_cast<int32_t>(slots_.size()), cache}));
    test::Expect(LaunchAttentionMany(TestStream(), {.out = out.data(),
                                                    .q = q.data(),
                                                    .tiles = device_tiles.data(),
                                                    .block_tables = block_tables.data(),
                                                    .num_tiles = static_cast<int32_t>(tiles.size()),
                                                    .max_blocks = max_blocks_,
                                                    .num_heads = shape_.num_heads,
                                                    .window = shape_.window,
                                                    .scale = scale(),
                                                    .cache = cache}));
    return out.Read();
  }

  // Of tokens begin … end − 1 of the batch.
  Values Of(const Values& out, int32_t begin, int32_t end) const {
    const int32_t row = shape_.num_heads * shape_.head_dim;
    return {out.begin() + begin * row, out.begin() + end * row};
  }

 private:
  template <class At>
  void ExpectRow(const float* q, const Values& k, const Values& v, int32_t begin, int32_t end, At at, double* outputs,
                 double* tolerance) const {
    constexpr double kUnit = 0x1.02p-11;  // rounding to halves, and a little for sums in float32
    const int32_t head_dim = shape_.head_dim;
    const auto count = static_cast<size_t>(end - begin);
    std::vector<double> weights(count), errors(count);
    double max = -std::numeric_limits<double>::infinity();
    for (size_t p = 0; p < count; p++) {
      const float* key = &k[at(begin + static_cast<int32_t>(p))];
      double sum = 0, size = 0;
      for (int32_t d = 0; d < head_dim; d++) {
        const double product = static_cast<double>(q[d]) * static_cast<double>(key[d]);
        sum += product;
        size += std::fabs(product);
      }
      weights[p] = sum * static_cast<double>(scale());
      errors[p] = kUnit * size * static_cast<double>(scale());
      max = std::max(max, weights[p]);
    }
    double total = 0, most = 0, least = 0;
    for (size_t p = 0; p < count; p++) {
      weights[p] = std::exp(weights[p] - max);
      total += weights[p];
      most += weights[p] * std::exp(errors[p]);
      least += weights[p] * std::exp(-errors[p]);
    }
    const double common = std::max(std::log(most / total), std::log(total / least));
    for (int32_t d = 0; d < head_dim; d++) {
      double sum = 0;
      for (size_t p = 0; p < count; p++) {
        sum +=
            weights[p] / total * static_cast<double>(v[at(begin + static_cast<int32_t>(p)) + static_cast<size_t>(d)]);
      }
      outputs[d] = sum;
      tolerance[d] = 1e-30;
      for (size_t p = 0; p < count; p++) {
        const double value = static_cast<double>(v[at(begin + static_cast<int32_t>(p)) + static_cast<size_t>(d)]);
        // Weights below 2^−24 of the largest are rounded to multiples of 2^−34 of it.
        tolerance[d] +=
            weights[p] / total * (std::expm1(errors[p] + common) * std::fabs(value - sum) + kUnit * std::fabs(value)) +
            0x1p-34 / total * std::fabs(value);
      }
    }
  }

  const Shape& shape_;
  int32_t num_seqs_, max_blocks_, num_blocks_;
  std::vector<int32_t> block_tables_, slots_, query_start_ = {0};
  std::vector<size_t> first_slot_;  // of each sequence in slots_, k_ and v_
  Values k_, v_, q_;
};

void Check(const Shape& shape) {
  Random random(Seed() + 31);
  const Batch batch(shape, &random);
  std::vector<double> expected, tolerance;
  batch.Expect(&expected, &tolerance);
  std::vector<ManyAttentionTile> tiles = batch.Tiles();
  Values first;
  for (Ways ways; ways.Next();) {
    const Values actual = batch.Run(tiles);
    ExpectNear(actual, expected, tolerance, "attention");
    if (first.empty()) first = actual;
    ExpectSame(actual, first, "the same once more");
    tiles.push_back({});  // an empty one changes nothing
  }
  // Errors are independent of each other, so most are far below the bound; but factors of 8-bit values are rounded with
  // the weights, and where one position has all the weight that is all there is.
  double squares = 0;
  for (size_t i = 0; i < first.size(); i++) {
    squares += std::pow((static_cast<double>(first[i]) - expected[i]) / tolerance[i], 2);
  }
  const double typical = std::sqrt(squares / static_cast<double>(first.size()));
  if (typical > (shape.dtype == KvDType::kF16 ? 0.1 : 0.4)) Wrong("a typical error is %g of the bound", typical);

  const std::vector<int32_t>& start = batch.query_start();
  for (size_t s = 0; s < shape.context_lens.size(); s++) {
    std::vector<ManyAttentionTile> own = batch.Tiles();
    std::erase_if(own, [&](const ManyAttentionTile& tile) { return static_cast<size_t>(tile.sequence) != s; });
    ExpectSame(batch.Of(batch.Run(own), start[s], start[s + 1]), batch.Of(first, start[s], start[s + 1]), "alone");
  }
  // Sequence 0 in two steps, cut where tiles are not.
  const int32_t cut = start[1] - kManyTokens - 3;
  if (cut < kManyTokens) return;
  const int32_t length = shape.context_lens[0];
  ExpectSame(batch.Of(batch.Run(batch.TilesOf({0, cut}, {length - (start[1] - cut)})), 0, cut), batch.Of(first, 0, cut),
             "the first tokens");
  ExpectSame(batch.Of(batch.Run(batch.TilesOf({cut, start[1]}, {length})), cut, start[1]),
             batch.Of(first, cut, start[1]), "the last tokens");
}

// A query that is not a number spoils its own row alone.
void CheckNotANumber(KvDType dtype) {
  const Shape shape = {dtype, 4, 2, 64, 16, 0, {70}, {40}};
  Random random(Seed() + 37);
  Batch batch(shape, &random);
  Values expected = batch.Run(batch.Tiles());
  constexpr size_t kRow = 4 * 17 + 1;
  batch.q()[kRow * 64 + 5] = std::numeric_limits<float>::infinity();
  Values actual = batch.Run(batch.Tiles());
  for (size_t d = 0; d < 64; d++) {
    if (!std::isnan(actual[kRow * 64 + d]))
      Wrong("%g of an infinite query", static_cast<double>(actual[kRow * 64 + d]));
    actual[kRow * 64 + d] = expected[kRow * 64 + d] = 0.0f;
  }
  ExpectSame(actual, expected, "other rows");
}

void CheckTiles() {
  // Sequences of 100, 15, 16 and 300 tokens.
  const std::vector<int32_t> start = {0, 100, 115, 131, 431}, lengths = {100, 500, 1016, 300};
  for (const int32_t heads_per_kv : {1, 4, 7, 71}) {
    std::vector<ManyAttentionTile> tiles(static_cast<size_t>(MaxManyAttentionTiles(431, heads_per_kv)));
    const int32_t count = MakeManyAttentionTiles(tiles.data(), start.data(), lengths.data(), 4, heads_per_kv);
    if (count > static_cast<int32_t>(tiles.size())) return Wrong("%d tiles", count);
    std::vector<int32_t> rows(4);
    for (int32_t i = 0; i < count; i++) {
      const ManyAttentionTile& tile = tiles[static_cast<size_t>(i)];
      const auto s = static_cast<size_t>(tile.sequence);
      rows[s] += std::min(kManyAttentionRows, tile.num_tokens * heads_per_kv - tile.first_row);
      const auto position = [&](const ManyAttentionTile& t) { return t.first_position + t.first_row / heads_per_kv; };
      if (i > 0 && position(tile) > position(tiles[static_cast<size_t>(i - 1)])) Wrong("a longer tile comes later");
      if (tile.first_token != start[s] || tile.first_position != lengths[s] - tile.num_tokens) Wrong("another place");
    }
    ExpectSame(rows, {100 * heads_per_kv, 0, 16 * heads_per_kv, 300 * heads_per_kv}, "rows");
  }
}

void CheckLaunches() {
  for (const KvDType dtype : {KvDType::kF16, KvDType::kInt8}) {
    for (const int32_t head_dim : {8, 40, 64, 80, 96, 128, 192, 256}) {
      ManyAttentionArgs args = {};
      args.num_tiles = 3;
      args.num_heads = 4;
      args.cache = {nullptr, nullptr, dtype, 2, head_dim, 16};
      const LaunchShape shape = ShapeOfAttentionMany(args);
      if (shape.shared_bytes > 99 << 10) Wrong("heads of %d: %d bytes of shared memory", head_dim, shape.shared_bytes);
      if (shape.grid_x != 3 || shape.grid_y != 2) Wrong("%d by %d blocks", shape.grid_x, shape.grid_y);
    }
  }
}

}  // namespace

void CheckAttentionMany() {
  for (const auto& [name, dtype] : {std::pair{"f16", KvDType::kF16}, {"int8", KvDType::kInt8}}) {
    const std::string prefix = std::string("attention of many tokens, ") + name + ", ";
    Case(prefix + "prefill", [&] { Check({dtype, 8, 2, 64, 16, 0, {70, 16}, {70, 16}}); });
    Case(prefix + "in the middle", [&] { Check({dtype, 4, 4, 128, 16, 0, {150, 211, 33}, {40, 17, 20}}); });
    Case(prefix + "seven heads on one", [&] { Check({dtype, 14, 2, 40, 4, 0, {61}, {55}}); });
    Case(prefix + "more heads than rows", [&] { Check({dtype, 71, 1, 24, 16, 0, {90}, {16}}); });
    Case(prefix + "window", [&] { Check({dtype, 4, 1, 80, 16, 50, {300, 90}, {120, 40}}); });
    Case(prefix + "a window of few", [&] { Check({dtype, 2, 2, 16, 32, 3, {200}, {140}}); });
    Case(prefix + "wide heads", [&] { Check({dtype, 2, 1, 256, 16, 0, {100}, {36}}); });
    Case(prefix + "heads of 96 and 192", [&] {
      Check({dtype, 2, 2, 96, 16, 0, {100}, {20}});
      Check({dtype, 2, 2, 192, 8, 40, {90}, {20}});
    });
    Case(prefix + "large scores", [&] { Check({dtype, 4, 2, 64, 16, 0, {200}, {60}, 12.0f}); });
    Case(prefix + "a long context", [&] { Check({dtype, 4, 1, 64, 16, 0, {4001}, {16}}); });
    Case(prefix + "a long context, large scores", [&] { Check({dtype, 4, 1, 64, 16, 0, {3000}, {17}, 12.0f}); });
    Case(prefix + "queries beyond halves", [&] { Check({dtype, 2, 1, 64, 16, 0, {80}, {40}, 1.0f, 0x1p18f}); });
    Case(prefix + "values of all sizes", [&] { Check({dtype, 2, 1, 64, 16, 0, {80}, {40}, 3.0f, 1.0f, 12}); });
    Case(prefix + "not a number", [&] { CheckNotANumber(dtype); });
  }
  Case("tiles of attention of many tokens", &CheckTiles);
  Case("launches of attention of many tokens", &CheckLaunches);
}

}  // namespace engine::cuda::test
