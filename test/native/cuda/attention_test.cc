// Keys and values in their blocks, and attention, against the scalar CPU kernels.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "check.h"
#include "device.h"
#include "kernels/cpu/isa.h"

namespace engine::cuda::test {
namespace {

struct Shape {
  kernels::KvDType dtype;
  int32_t num_heads, num_kv_heads, head_dim, block_size, window;
  std::vector<int32_t> context_lens;
  std::vector<int32_t> num_queries;  // of each sequence, its last tokens
};

using Values = std::vector<float>;

// A batch whose contexts were written token by token before, in blocks that lie anywhere.
class Batch {
 public:
  Batch(const Shape& shape, Random* random) : shape_(shape) {
    const auto num_seqs = static_cast<int32_t>(shape.context_lens.size());
    max_blocks_ = CeilDivide(*std::max_element(shape.context_lens.begin(), shape.context_lens.end()), shape.block_size);
    num_blocks_ = num_seqs * max_blocks_ + 3;
    std::vector<int32_t> blocks(static_cast<size_t>(num_blocks_));
    std::iota(blocks.begin(), blocks.end(), 0);
    for (int32_t i = num_blocks_ - 1; i > 0; i--) {
      std::swap(blocks[static_cast<size_t>(i)], blocks[static_cast<size_t>(random->below(i + 1))]);
    }
    block_tables_.assign(static_cast<size_t>(num_seqs * max_blocks_), -1);
    query_start_ = {0};
    for (int32_t s = 0; s < num_seqs; s++) {
      const int32_t length = shape.context_lens[static_cast<size_t>(s)];
      for (int32_t b = 0; b < CeilDivide(length, shape.block_size); b++) {
        block_tables_[static_cast<size_t>(s * max_blocks_ + b)] = blocks[static_cast<size_t>(s * max_blocks_ + b)];
      }
      for (int32_t p = 0; p < length; p++) {
        const int32_t block = block_tables_[static_cast<size_t>(s * max_blocks_ + p / shape.block_size)];
        slots_.push_back(block * shape.block_size + p % shape.block_size);
      }
      query_start_.push_back(query_start_.back() + shape.num_queries[static_cast<size_t>(s)]);
    }
    slots_.push_back(-1);  // a token that is stored nowhere
    const size_t row = static_cast<size_t>(shape.num_kv_heads * shape.head_dim);
    k_ = random->values(slots_.size() * row, 2.0f);
    v_ = random->values(slots_.size() * row);
    q_ = random->values(static_cast<size_t>(num_tokens() * shape.num_heads * shape.head_dim), 2.0f);
  }

  int32_t num_tokens() const { return query_start_.back(); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // By the scalar CPU kernels.
  Values Expected() const {
    const size_t bytes = kernels::kv_block_bytes(shape_.dtype, shape_.head_dim, shape_.block_size) *
                         static_cast<size_t>(num_blocks_ * shape_.num_kv_heads);
    std::vector<uint8_t> keys(bytes), values(bytes);
    const kernels::KvCache cache = {keys.data(),         values.data(),   shape_.dtype,
                                    shape_.num_kv_heads, shape_.head_dim, shape_.block_size};
    const kernels::Kernels& scalar = kernels::kernels_scalar;
    scalar.write_kv({k_.data(), v_.data(), slots_.data(), static_cast<int32_t>(slots_.size()), cache}, {0, 1});
    Values out(q_.size());
    std::vector<uint8_t> scratch(kernels::scratch_bytes(num_tokens(), 1, shape_.num_heads, shape_.head_dim) + 64);
    auto* aligned = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
    scalar.attention({.out = out.data(),
                      .q = q_.data(),
                      .query_start = query_start_.data(),
                      .context_lens = shape_.context_lens.data(),
                      .block_tables = block_tables_.data(),
                      .num_seqs = static_cast<int32_t>(shape_.context_lens.size()),
                      .max_blocks = max_blocks_,
                      .num_heads = shape_.num_heads,
                      .window = shape_.window,
                      .scale = scale(),
                      .cache = cache,
                      .exchange = {},
                      .scratch = aligned},
                     {0, 1});
    return out;
  }

  // Of sequence `only`, or of all if it is −1.
  Values Run(bool split, int32_t only = -1) const {
    const size_t bytes = KvBlockBytes(shape_.dtype, shape_.head_dim, shape_.block_size) *
                         static_cast<size_t>(num_blocks_ * shape_.num_kv_heads);
    const DeviceArray<uint8_t> keys(bytes), values(bytes);
    const KvCache cache = {keys.data(),         values.data(),   shape_.dtype,
                           shape_.num_kv_heads, shape_.head_dim, shape_.block_size};
    const DeviceArray<float> k(k_), v(v_), q(q_), out(q_.size());
    const DeviceArray<int32_t> slots(slots_), block_tables(block_tables_);
    Expect(LaunchWriteKv(TestStream(), {k.data(), v.data(), slots.data(), static_cast<int32_t>(slots_.size()), cache}));

    std::vector<AttentionTile> tiles(static_cast<size_t>(num_tokens()));
    tiles.resize(static_cast<size_t>(MakeAttentionTiles(tiles.data(), query_start_.data(), shape_.context_lens.data(),
                                                        static_cast<int32_t>(shape_.context_lens.size()),
                                                        shape_.num_heads / shape_.num_kv_heads)));
    if (only >= 0) std::erase_if(tiles, [&](const AttentionTile& tile) { return tile.sequence != only; });
    const DeviceArray<AttentionTile> device_tiles(tiles);
    const int32_t longest = *std::max_element(shape_.context_lens.begin(), shape_.context_lens.end());
    const int32_t num_chunks = CeilDivide(longest, kAttentionChunk);
    const DeviceArray<float> partials(
        AttentionPartialFloats(num_tokens(), shape_.num_heads, shape_.head_dim, num_chunks));
    Expect(LaunchAttention(TestStream(), {.out = out.data(),
                                          .q = q.data(),
                                          .tiles = device_tiles.data(),
                                          .block_tables = block_tables.data(),
                                          .partials = partials.data(),
                                          .num_tokens = num_tokens(),
                                          .num_tiles = static_cast<int32_t>(tiles.size()),
                                          .max_blocks = max_blocks_,
                                          .num_heads = shape_.num_heads,
                                          .num_chunks = num_chunks,
                                          .window = shape_.window,
                                          .scale = scale(),
                                          .cache = cache,
                                          .split = split}));
    return out.Read();
  }

  // The part of an output that is sequence s.
  Values Of(const Values& out, size_t s) const {
    const int32_t row = shape_.num_heads * shape_.head_dim;
    return {out.begin() + query_start_[s] * row, out.begin() + query_start_[s + 1] * row};
  }

 private:
  const Shape& shape_;
  int32_t max_blocks_, num_blocks_;
  std::vector<int32_t> block_tables_, query_start_, slots_;
  Values k_, v_, q_;
};

void Check(const Shape& shape) {
  Random random(Seed() + 29);
  const Batch batch(shape, &random);
  const Values expected = batch.Expected();
  const std::vector<double> wide(expected.begin(), expected.end());
  const std::vector<double> tolerance(expected.size(), 3e-6);
  Values first;
  for (Ways ways; ways.Next();) {
    for (const bool split : {false, true}) {
      const Values actual = batch.Run(split);
      ExpectNear(actual, wide, tolerance, split ? "attention, chunks apart" : "attention");
      if (first.empty()) first = actual;
      ExpectSame(actual, first, "the same once more");
    }
  }
  for (size_t s = 0; s < shape.context_lens.size(); s++) {
    ExpectSame(batch.Of(batch.Run(true, static_cast<int32_t>(s)), s), batch.Of(first, s), "a sequence alone");
  }
}

}  // namespace

void CheckAttention() {
  using kernels::KvDType;
  const std::pair<const char*, KvDType> dtypes[] = {
      {"f32", KvDType::kF32}, {"f16", KvDType::kF16}, {"int8", KvDType::kInt8}};
  for (const auto& [name, dtype] : dtypes) {
    const std::string prefix = std::string("attention, ") + name + ", ";
    Case(prefix + "decode", [&] { Check({dtype, 8, 2, 64, 16, 0, {300, 1, 257, 16}, {1, 1, 1, 1}}); });
    Case(prefix + "ragged", [&] { Check({dtype, 3, 3, 40, 16, 0, {21, 270, 5}, {21, 5, 2}}); });
    Case(prefix + "many heads on one", [&] { Check({dtype, 20, 1, 128, 16, 0, {33, 9}, {2, 9}}); });
    Case(prefix + "window", [&] { Check({dtype, 4, 2, 8, 16, 100, {530, 90}, {3, 4}}); });
    Case(prefix + "wide heads, other blocks", [&] { Check({dtype, 2, 1, 256, 32, 0, {70}, {9}}); });
  }
}

}  // namespace engine::cuda::test
