// Prints a hash of the output of every kernel on fixed inputs, one case per line: a machine, an emulator or an
// instruction set computes what another does if the lines are equal (kernel-digest.test.ts). Cases are computed whole
// and in three parts; if these differ the program says so and exits with 1.
//
//     kernel_digest [LIMIT]        the highest instruction set up to LIMIT; its name is the first line
//     kernel_digest --isa [LIMIT]  the name only
#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"
#include "quantize_panel.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

using namespace engine::kernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// splitmix64 (Steele, Lea, Flood 2014), and values made of its bits exactly: no library function may come between.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int32_t below(int32_t count) { return static_cast<int32_t>((bits() >> 32) % static_cast<uint32_t>(count)); }
  // −1 … 1 in steps of 2^−23
  float value() { return static_cast<float>(static_cast<int32_t>(bits() >> 40) - (1 << 23)) * 0x1p-23f; }
  float pick(std::initializer_list<float> values) { return values.begin()[below(static_cast<int32_t>(values.size()))]; }

 private:
  uint64_t state_;
};

// Memory of exactly this size, so that a sanitizer sees every overrun, aligned as a session's is.
template <class T>
class Array {
 public:
  explicit Array(size_t size) : size_(size), data_(new(kAlignment) T[size]()) {}
  T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(T* data) const { operator delete[](data, kAlignment); }
  };
  size_t size_;
  std::unique_ptr<T[], Delete> data_;
};

Array<float> random_floats(Random& random, size_t size, float spread = 1.0f) {
  Array<float> values(size);
  for (size_t i = 0; i < size; i++) values[i] = random.value() * spread;
  return values;
}

// Zeros, subnormal and huge numbers, infinities, NaN, the ends of exp's range, among ordinary ones.
Array<float> special_floats(Random& random, size_t size) {
  Array<float> values = random_floats(random, size, 20.0f);
  for (size_t i = 0; i < size; i += 2) {
    values[i] = random.pick({0.0f,      -0.0f,      0x1p-149f, -0x1p-140f, 0x1p-126f,  3.4e38f,   -3.4e38f,
                             kInfinity, -kInfinity, kNaN,      87.33654f,  -87.33655f, 88.37626f, 88.37627f,
                             65519.0f,  65520.0f,   1e-30f,    -1e-30f,    0x1p-24f,   0x1p-25f});
  }
  return values;
}

// FNV-1a over words. All NaNs count as one: which NaN an operation gives is the processor's choice (IEEE 754, 6.2.3).
class Hash {
 public:
  void add_word(uint32_t word) {
    for (int shift = 0; shift < 32; shift += 8) state_ = (state_ ^ (word >> shift & 0xff)) * 0x100000001b3;
  }
  void add(const Array<float>& values) {
    for (size_t i = 0; i < values.size(); i++) {
      uint32_t word;
      memcpy(&word, &values[i], sizeof word);
      add_word(values[i] == values[i] ? word : 0x7fc00000);
    }
  }
  void add_f16(const auto& bytes) {
    for (size_t i = 0; i < bytes.size(); i += 2) {
      const uint32_t word = bytes[i] | static_cast<uint32_t>(bytes[i + 1]) << 8;
      add_word((word & 0x7fff) > 0x7c00 ? 0x7e00 : word);
    }
  }
  void add(const auto& values) {
    for (size_t i = 0; i < values.size(); i++) add_word(static_cast<uint32_t>(values[i]));
  }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325;
};

const Kernels* kernels = nullptr;
bool consistent = true;

using Run = std::function<void(const std::function<void(const std::function<void(Part)>&)>& in_parts, Hash& hash)>;

// `run` makes its outputs, hands the kernel call to in_parts, and hashes the outputs. Returns their hash.
uint64_t digest(const std::string& name, const Run& run) {
  uint64_t states[2];
  for (int i = 0; i < 2; i++) {
    Hash hash;
    const int32_t count = i == 0 ? 1 : 3;
    run(
        [count](const std::function<void(Part)>& kernel) {
          for (int32_t index = 0; index < count; index++) kernel({index, count});
        },
        hash);
    states[i] = hash.state();
  }
  printf("%s: %016" PRIx64 "\n", name.c_str(), states[0]);
  if (states[0] != states[1]) {
    consistent = false;
    fprintf(stderr, "%s differs in three parts: %016" PRIx64 "\n", name.c_str(), states[1]);
  }
  return states[0];
}

// What must be the same in two ways of computing it.
void require_equal(const Array<float>& a, const Array<float>& b, const std::string& name) {
  if (memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return;
  consistent = false;
  fprintf(stderr, "%s differs between rows and panels\n", name.c_str());
}

std::string text(const char* format, auto... values) {
  char line[200];
  snprintf(line, sizeof line, format, values...);
  return line;
}

// --- weights

struct Weight {
  Array<uint8_t> bytes;
  Matrix matrix;
};

// Random codes and scales. The float16 factors lie in the first or last four bytes of a block: without the top bit of
// their exponent they are below 2.
Weight random_weight(Random& random, DType dtype, int32_t rows, int32_t columns) {
  const DTypeTraits traits = dtype_traits(dtype);
  const auto block_bytes = static_cast<size_t>(traits.block_bytes);
  const size_t row_bytes = static_cast<size_t>(columns / traits.block_size) * block_bytes;
  Array<uint8_t> bytes(static_cast<size_t>(rows) * row_bytes);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(random.bits());
  for (size_t block = 0; block < bytes.size(); block += block_bytes) {
    const auto small = [&](size_t at) { bytes[block + at] &= 0xbf; };
    small(block_bytes - 1);
    if (traits.block_size > 1) {
      small(block_bytes - 3);
      small(1);
      small(3);
    }
  }
  Matrix matrix = {bytes.data(), dtype, rows, columns, false, row_bytes};
  return {std::move(bytes), matrix};
}

size_t num_panels(int32_t rows) { return static_cast<size_t>((rows + kPanelRows - 1) / kPanelRows); }

// Random codes and factors of one of our own types; d and m, in the first line of a panel, are bfloat16.
Weight random_packed(Random& random, DType dtype, int32_t rows, int32_t columns) {
  const size_t panel_bytes = packed_panel_bytes(dtype, columns);
  Array<uint8_t> bytes(num_panels(rows) * panel_bytes);
  for (size_t i = 0; i < bytes.size(); i++) {
    bytes[i] = static_cast<uint8_t>(random.bits());
    if (i % panel_bytes < 64 && i % 2 == 1) bytes[i] = static_cast<uint8_t>(0x38 + bytes[i] % 8);  // 2^−16 … 2
  }
  Matrix matrix = {bytes.data(), dtype, rows, columns, true, panel_bytes};
  return {std::move(bytes), matrix};
}

// The packed form of a matrix stored by rows.
Weight packed(const Weight& weight) {
  const Matrix& source = weight.matrix;
  const size_t panel_bytes = packed_panel_bytes(source.dtype, source.columns);
  Array<uint8_t> bytes(num_panels(source.rows) * panel_bytes);
  kernels->pack(bytes.data(), source, 0, static_cast<int32_t>(num_panels(source.rows)));
  Matrix matrix = {bytes.data(), source.dtype, source.rows, source.columns, true, panel_bytes};
  return {std::move(bytes), matrix};
}

constexpr int32_t kLastDType = 63;
constexpr DType kOwnTypes[] = {DType::kInt8, DType::kInt4, DType::kInt4G64, DType::kInt4G128, DType::kInt4Sym};

// Calls f for every storage type there is.
void for_each_dtype(const std::function<void(DType, int32_t block_size)>& f) {
  for (int32_t id = 0; id <= kLastDType; id++) {
    const auto dtype = static_cast<DType>(id);
    if (const int32_t block_size = dtype_traits(dtype).block_size; block_size > 0) f(dtype, block_size);
  }
}

// An odd number of blocks, more than the kernels handle at once.
int32_t some_columns(int32_t block_size) { return block_size == 1 ? 517 : block_size == 32 ? 544 : 768; }

void digest_embeddings() {
  for_each_dtype([](DType dtype, int32_t block_size) {
    Random random(1);
    const int32_t columns = some_columns(block_size);
    const Weight table = random_weight(random, dtype, 19, columns);
    const int32_t ids[] = {3, 18, 0, 3, 7};
    const Array<float> start = random_floats(random, 5 * static_cast<size_t>(columns));
    digest(text("embed type %d", static_cast<int>(dtype)), [&](auto in_parts, Hash& hash) {
      Array<float> out(5 * static_cast<size_t>(columns));
      in_parts([&](Part part) { kernels->embed(out.data(), table.matrix, ids, 5, part); });
      hash.add(out);
    });
    if (packed_panel_bytes(dtype, columns) > 0) {
      const Weight panels = packed(table);
      Array<float> of_rows(start.size()), of_panels(start.size());
      kernels->embed(of_rows.data(), table.matrix, ids, 5, {0, 1});
      kernels->embed(of_panels.data(), panels.matrix, ids, 5, {0, 1});
      require_equal(of_rows, of_panels, text("embed type %d", static_cast<int>(dtype)));
    }
    digest(text("add_rows type %d", static_cast<int>(dtype)), [&](auto in_parts, Hash& hash) {
      Array<float> x(start.size());
      memcpy(x.data(), start.data(), start.size() * sizeof(float));
      in_parts([&](Part part) { kernels->add_rows(x.data(), table.matrix, ids, 5, part); });
      hash.add(x);
    });
    digest(text("dequantize_row type %d", static_cast<int>(dtype)), [&](auto, Hash& hash) {
      Array<float> out(static_cast<size_t>(columns));
      dequantize_row(out.data(), dtype, table.matrix.data, columns);
      hash.add(out);
    });
  });
}

struct Quantized {
  Array<int8_t> codes;
  Array<float> scales;
  Array<int32_t> sums;
  Array<float> scaled_sums;
  Quantized(size_t rows, size_t columns, size_t chunk)
      : codes(whole_tiles(rows) * columns),
        scales(whole_tiles(rows) * columns / chunk),
        sums(whole_tiles(rows) * columns / kSumGroup),
        scaled_sums(whole_tiles(rows) * columns / chunk) {}
  QuantizedRows rows(int32_t chunk, int32_t columns) const {
    return {codes.data(), scales.data(), sums.data(), scaled_sums.data(), chunk, columns};
  }

 private:
  static size_t whole_tiles(size_t rows) { return (rows + kActivationTile - 1) / kActivationTile * kActivationTile; }
};

void digest_quantize_rows() {
  for (const int32_t chunk : {32, 256}) {
    const int32_t columns = 5 * chunk;
    Random random(2);
    for (const bool special : {false, true}) {
      const size_t size = 7 * static_cast<size_t>(columns);
      Array<float> x = special ? special_floats(random, size) : random_floats(random, size, 30.0f);
      if (special) {  // otherwise every chunk has a NaN
        for (size_t i = 0; i < size; i++) {
          if (i / static_cast<size_t>(chunk) % 2 == 0 && !(x[i] < 3e38f && x[i] > -3e38f)) x[i] = 0.0f;
        }
      }
      digest(text("quantize_rows chunk %d%s", chunk, special ? " special" : ""), [&](auto in_parts, Hash& hash) {
        const Quantized out(7, static_cast<size_t>(columns), static_cast<size_t>(chunk));
        in_parts([&](Part part) {  // by columns
          const int32_t begin = 5 * part.index / part.count * chunk, end = 5 * (part.index + 1) / part.count * chunk;
          kernels->quantize_rows(out.rows(chunk, columns), x.data(), 7, {0, 7, begin, end});
        });
        hash.add(out.codes);
        hash.add(out.scales);
        hash.add(out.sums);
        hash.add(out.scaled_sums);
      });
    }
  }
}

void digest_quantize_panel() {
  for (const DType dtype : kOwnTypes) {
    const int32_t columns = 3 * 128;
    Random random(8);
    for (const bool special : {false, true}) {
      const size_t size = 16 * static_cast<size_t>(columns);
      Array<float> rows = special ? special_floats(random, size) : random_floats(random, size, 0.1f);
      for (size_t i = 0; i < size; i++) {
        if (!(rows[i] < kInfinity && rows[i] > -kInfinity)) rows[i] = 0.0f;
        if (i % 5 != 0 && rows[i] * rows[i] > 1e6f) rows[i] = 1.0f;  // otherwise every row has huge values
      }
      Array<float> weights = random_floats(random, static_cast<size_t>(columns));
      for (size_t i = 0; i < weights.size(); i++) weights[i] *= weights[i];
      const Array<float> scratch(quantize_scratch_floats(columns));
      const Array<float> feedback = random_floats(random, static_cast<size_t>(columns * columns), 0.05f);
      for (const bool calibrated : {false, true}) {
        const auto name = text("quantize_panel type %d%s%s", static_cast<int>(dtype), special ? " special" : "",
                               calibrated ? " calibrated" : "");
        digest(name, [&](auto, Hash& hash) {
          Array<uint8_t> out(packed_panel_bytes(dtype, columns));
          kernels->quantize_panel({.out = out.data(),
                                   .dtype = dtype,
                                   .rows = rows.data(),
                                   .columns = columns,
                                   .weights = calibrated ? weights.data() : nullptr,
                                   .feedback = calibrated ? feedback.data() : nullptr,
                                   .scratch = scratch.data()});
          hash.add(out);
        });
      }
    }
  }
}

void digest_linear_of(const Weight& weight, const Weight* packed_weight, int32_t tokens, Random& random) {
  const auto [data, dtype, rows, columns, is_packed, stride] = weight.matrix;
  const int32_t block_size = dtype_traits(dtype).block_size;
  const Array<float> x = random_floats(random, static_cast<size_t>(tokens) * static_cast<size_t>(columns));
  const Array<float> bias = random_floats(random, static_cast<size_t>(rows));
  const Array<uint8_t> scratch(scratch_bytes(tokens, columns, 1, 1));
  for (const bool q8 : {false, true}) {
    if (q8 && block_size == 1) continue;
    const Quantized codes(static_cast<size_t>(tokens), static_cast<size_t>(columns), static_cast<size_t>(block_size));
    const QuantizedRows q = codes.rows(block_size, columns);
    if (q8) kernels->quantize_rows(q, x.data(), tokens, {0, tokens, 0, columns});
    const auto multiply = [&](const Matrix& matrix, Array<float>& out, Part part) {
      kernels->linear({.out = out.data(),
                       .x = x.data(),
                       .q = q8 ? &q : nullptr,
                       .num_rows = tokens,
                       .weight = matrix,
                       .bias = tokens % 2 == 1 ? bias.data() : nullptr,
                       .scratch = scratch.data()},
                      part);
    };
    const size_t out_size = static_cast<size_t>(tokens) * static_cast<size_t>(rows);
    const auto name =
        text("linear %s type %d, %d rows, %d tokens", q8 ? "q8" : "f32", static_cast<int>(dtype), rows, tokens);
    digest(name, [&](auto in_parts, Hash& hash) {
      Array<float> out(out_size);
      in_parts([&](Part part) { multiply(weight.matrix, out, part); });
      hash.add(out);
    });
    if (packed_weight == nullptr) continue;
    Array<float> of_rows(out_size), of_panels(out_size);
    multiply(weight.matrix, of_rows, {0, 1});
    for (int32_t index = 0; index < 2; index++) multiply(packed_weight->matrix, of_panels, {index, 2});
    require_equal(of_rows, of_panels, name);
  }
}

void digest_linear() {
  for_each_dtype([](DType dtype, int32_t block_size) {
    const int32_t columns = some_columns(block_size);
    for (const int32_t rows : {1, 69, 33}) {
      for (const int32_t tokens : {1, 2, 3, 5, 12, 21}) {
        Random random(3);
        const Weight weight = random_weight(random, dtype, rows, columns);
        if (packed_panel_bytes(dtype, columns) > 0) {
          const Weight panels = packed(weight);
          digest_linear_of(weight, &panels, tokens, random);
        } else {
          digest_linear_of(weight, nullptr, tokens, random);
        }
      }
    }
  });
  for (const DType dtype : kOwnTypes) {
    for (const int32_t rows : {1, 69}) {
      for (const int32_t tokens : {1, 2, 3, 5, 12, 21}) {
        Random random(8);
        digest_linear_of(random_packed(random, dtype, rows, 640), nullptr, tokens, random);
      }
    }
  }
}

// --- elementwise

void digest_elementwise() {
  for (const int32_t columns : {1, 15, 64, 133}) {
    for (const bool special : {false, true}) {
      Random random(4);
      const int32_t rows = 7;
      const size_t size = static_cast<size_t>(rows) * static_cast<size_t>(columns);
      const Array<float> x = special ? special_floats(random, size) : random_floats(random, size, 5.0f);
      const Array<float> y = random_floats(random, size, 2.0f);
      const Array<float> bias = random_floats(random, static_cast<size_t>(columns));
      const auto count = static_cast<int64_t>(size);
      const auto pointwise = [&](const char* kernel, const std::function<void(float* out, Part part)>& call) {
        digest(text("%s %d columns%s", kernel, columns, special ? " special" : ""), [&](auto in_parts, Hash& hash) {
          Array<float> out(size);
          memcpy(out.data(), y.data(), size * sizeof(float));
          in_parts([&](Part part) { call(out.data(), part); });
          hash.add(out);
        });
      };
      pointwise("rms_norm", [&](float* out, Part part) {
        kernels->rms_norm(out, x.data(), bias.data(), rows, columns, 1e-5f, part);
      });
      pointwise("layer_norm", [&](float* out, Part part) {
        kernels->layer_norm(out, x.data(), y.data(), bias.data(), rows, columns, 1e-5f, part);
      });
      pointwise("layer_norm without bias", [&](float* out, Part part) {
        kernels->layer_norm(out, x.data(), y.data(), nullptr, rows, columns, 1e-5f, part);
      });
      pointwise("silu_mul", [&](float* out, Part part) { kernels->silu_mul(out, x.data(), y.data(), count, part); });
      pointwise("gelu tanh", [&](float* out, Part part) { kernels->gelu(out, x.data(), count, true, part); });
      pointwise("gelu erf", [&](float* out, Part part) { kernels->gelu(out, x.data(), count, false, part); });
      pointwise("add", [&](float* out, Part part) { kernels->add(out, x.data(), count, part); });
    }
  }
}

void digest_rope() {
  for (const bool interleaved : {false, true}) {
    for (const int32_t num_pairs : {1, 13, 32}) {
      Random random(5);
      const int32_t head_dim = 2 * num_pairs + 2;  // the last values are not rotated
      const size_t size = 5 * 3 * static_cast<size_t>(head_dim);
      const Array<float> x = random_floats(random, size, 4.0f);
      const Array<float> cos = random_floats(random, 40 * static_cast<size_t>(num_pairs));
      const Array<float> sin = random_floats(random, 40 * static_cast<size_t>(num_pairs));
      const int32_t positions[] = {0, 39, 7, 8, 1};
      digest(text("rope %d pairs%s", num_pairs, interleaved ? " interleaved" : ""), [&](auto in_parts, Hash& hash) {
        Array<float> out(size);
        memcpy(out.data(), x.data(), size * sizeof(float));
        in_parts([&](Part part) {
          kernels->rope({.x = out.data(),
                         .positions = positions,
                         .num_rows = 5,
                         .width = 3 * head_dim,
                         .head_dim = head_dim,
                         .interleaved = interleaved,
                         .table = {cos.data(), sin.data(), num_pairs}},
                        part);
        });
        hash.add(out);
      });
    }
  }
}

// --- attention

struct AttentionCase {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
  int32_t window;
};

// Three sequences: a prefill, one token after a long context, a chunk in the middle.
constexpr int32_t kQueryStart[] = {0, 21, 22, 27};
constexpr int32_t kContextLens[] = {21, 601, 300};
constexpr int32_t kNumTokens = 27;

const char* name_of(KvDType dtype) { return dtype == KvDType::kF32 ? "f32" : dtype == KvDType::kF16 ? "f16" : "int8"; }

void add_kv(Hash& hash, const auto& bytes, KvDType dtype) {
  if (dtype == KvDType::kF16) {
    hash.add_f16(bytes);
  } else {
    hash.add(bytes);
  }
}

// Tokens of one call, and what its parts share.
struct AttentionBatch {
  std::vector<int32_t> query_start;
  std::vector<int32_t> context_lens;
  const int32_t* block_tables;  // of the first sequence
};

// Keys or values of some blocks, and before them a block −1 of NaNs, which a sanitizer takes for no memory at all.
class GuardedBlocks {
 public:
  GuardedBlocks(size_t num_blocks, size_t block_bytes)
      : guard_((block_bytes + 63) / 64 * 64), size_(num_blocks * block_bytes), bytes_(guard_ + size_) {
    memset(bytes_.data(), 0xff, guard_);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(bytes_.data(), guard_);
#endif
  }
  ~GuardedBlocks() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(bytes_.data(), guard_);
#endif
  }
  uint8_t* data() const { return bytes_.data() + guard_; }
  size_t size() const { return size_; }
  uint8_t& operator[](size_t i) const { return data()[i]; }

 private:
  size_t guard_, size_;
  Array<uint8_t> bytes_;
};

void digest_attention(const AttentionCase& c, KvDType kv_dtype) {
  Random random(6);
  const int32_t max_blocks = (601 + c.block_size - 1) / c.block_size;
  const int32_t num_blocks = 3 * max_blocks;
  const int32_t num_slots = num_blocks * c.block_size;
  std::vector<int32_t> tables(static_cast<size_t>(num_blocks));
  for (int32_t i = 0; i < num_blocks; i++) tables[static_cast<size_t>(i)] = i;
  for (int32_t i = num_blocks - 1; i > 0; i--) {
    std::swap(tables[static_cast<size_t>(i)], tables[static_cast<size_t>(random.below(i + 1))]);
  }
  std::vector<int32_t> slots(static_cast<size_t>(num_slots));
  for (int32_t i = 0; i < num_slots; i++) slots[static_cast<size_t>(i)] = i % 50 == 49 ? -1 : num_slots - 1 - i;

  const size_t kv_size = static_cast<size_t>(num_slots) * static_cast<size_t>(c.num_kv_heads * c.head_dim);
  const size_t q_size = static_cast<size_t>(kNumTokens) * static_cast<size_t>(c.num_heads * c.head_dim);
  const Array<float> k = random_floats(random, kv_size, 2.0f);
  const Array<float> v = random_floats(random, kv_size, 2.0f);
  const Array<float> q = random_floats(random, q_size, 2.0f);
  const size_t block_bytes = kv_block_bytes(kv_dtype, c.head_dim, c.block_size);
  const GuardedBlocks keys(static_cast<size_t>(num_blocks), static_cast<size_t>(c.num_kv_heads) * block_bytes);
  const GuardedBlocks values(static_cast<size_t>(num_blocks), static_cast<size_t>(c.num_kv_heads) * block_bytes);
  const KvCache cache = {keys.data(), values.data(), kv_dtype, c.num_kv_heads, c.head_dim, c.block_size};
  const auto name = text("heads %d/%d of %d, blocks of %d, window %d, %s", c.num_heads, c.num_kv_heads, c.head_dim,
                         c.block_size, c.window, name_of(kv_dtype));
  digest("write_kv " + name, [&](auto in_parts, Hash& hash) {
    memset(keys.data(), 0, keys.size());
    memset(values.data(), 0, values.size());
    in_parts([&](Part part) { kernels->write_kv({k.data(), v.data(), slots.data(), num_slots, cache}, part); });
    add_kv(hash, keys, kv_dtype);
    add_kv(hash, values, kv_dtype);
  });
  const Array<uint8_t> scratch(scratch_bytes(kNumTokens, 1, c.num_heads, c.head_dim));
  // Room to share every tile, or none.
  const int64_t shared_floats = attention_exchange_floats(c.num_heads * kNumTokens, c.head_dim, 601);
  const Array<float> results(static_cast<size_t>(shared_floats));
  const auto digest_batch = [&](const char* batch_name, const AttentionBatch& batch, int64_t capacity) {
    std::atomic<int32_t> done[kMaxSharedTiles] = {};
    return digest(batch_name + name, [&](auto in_parts, Hash& hash) {
      Array<float> out(static_cast<size_t>(batch.query_start.back() * c.num_heads * c.head_dim));
      in_parts([&](Part part) {
        kernels->attention({.out = out.data(),
                            .q = q.data(),
                            .query_start = batch.query_start.data(),
                            .context_lens = batch.context_lens.data(),
                            .block_tables = batch.block_tables,
                            .num_seqs = static_cast<int32_t>(batch.context_lens.size()),
                            .max_blocks = max_blocks,
                            .num_heads = c.num_heads,
                            .window = c.window,
                            .scale = 0.125f,
                            .cache = cache,
                            .exchange = {results.data(), capacity, done},
                            .scratch = scratch.data()},
                           part);
      });
      hash.add(out);
      for (const auto& count : done) hash.add_word(static_cast<uint32_t>(count.load()));
    });
  };
  const AttentionBatch whole = {{std::begin(kQueryStart), std::end(kQueryStart)},
                                {std::begin(kContextLens), std::end(kContextLens)},
                                tables.data()};
  const AttentionBatch decode = {{0, 1}, {601}, tables.data() + max_blocks};
  const uint64_t hash = digest_batch("attention ", whole, 0);
  digest_batch("attention, shared, ", whole, shared_floats);
  digest_batch("attention of one token ", decode, 0);
  digest_batch("attention of one token, shared, ", decode, shared_floats);
  if (c.window == 0) return;

  // Without the blocks that no query's window reaches.
  for (size_t s = 0; s < std::size(kContextLens); s++) {
    const int32_t first_query = kContextLens[s] - (kQueryStart[s + 1] - kQueryStart[s]);
    const int32_t num_unseen = std::max(0, first_query - c.window + 1) / c.block_size;
    const auto table = tables.begin() + static_cast<ptrdiff_t>(s) * max_blocks;
    std::fill(table, table + num_unseen, -1);
  }
  for (const int64_t capacity : {int64_t{0}, shared_floats}) {
    const char* what = capacity == 0 ? "attention with absent blocks " : "attention with absent blocks, shared, ";
    if (digest_batch(what, whole, capacity) == hash) continue;
    consistent = false;
    fprintf(stderr, "%s%s differs from that with all blocks\n", what, name.c_str());
  }
}

// Rows of ordinary, tiny, infinite and no numbers.
void digest_kv_extremes(KvDType kv_dtype) {
  Random random(8);
  constexpr int32_t kHeadDim = 24, kBlockSize = 16;
  const Array<float> rows = special_floats(random, kBlockSize * kHeadDim);
  for (size_t i = 0; i < 4 * kHeadDim; i++) rows[i] = random.value() * 0x1p-99f;
  std::vector<int32_t> slots(kBlockSize);
  for (int32_t i = 0; i < kBlockSize; i++) slots[static_cast<size_t>(i)] = i;
  const Array<uint8_t> keys(kv_block_bytes(kv_dtype, kHeadDim, kBlockSize));
  const Array<uint8_t> values(keys.size());
  const KvCache cache = {keys.data(), values.data(), kv_dtype, 1, kHeadDim, kBlockSize};
  digest(text("write_kv extremes, %s", name_of(kv_dtype)), [&](auto in_parts, Hash& hash) {
    in_parts([&](Part part) { kernels->write_kv({rows.data(), rows.data(), slots.data(), kBlockSize, cache}, part); });
    add_kv(hash, keys, kv_dtype);
    add_kv(hash, values, kv_dtype);
  });
}

// --- sampling

void digest_sample(int32_t vocab_size, int32_t trial, Random& random) {
  const auto size = static_cast<size_t>(vocab_size);
  const Array<float> logits =
      trial % 8 == 7 ? special_floats(random, size) : random_floats(random, size, random.pick({0.0f, 1.0f, 20.0f}));
  Array<int32_t> history(30);
  for (size_t i = 0; i < history.size(); i++) history[i] = random.below(vocab_size);
  const int32_t bias_ids[] = {0, vocab_size / 2, vocab_size - 1};
  const float bias_values[] = {3.0f, -2.5f, trial % 3 == 0 ? -kInfinity : 1.0f};
  Array<uint32_t> mask((size + 31) / 32);
  for (size_t i = 0; i < mask.size(); i++) mask[i] = static_cast<uint32_t>(random.bits());
  mask[0] |= 1;
  const auto option = [&](std::initializer_list<float> values) { return random.pick(values); };
  SamplingRow row = {};
  row.logits = logits.data();
  row.position = random.below(5000);
  row.choice = random.below(4);
  row.seed_low = static_cast<uint32_t>(random.bits());
  row.seed_high = static_cast<uint32_t>(random.bits());
  row.flags = kSample | kLogprobs;
  row.temperature = option({0.0f, 0.1f, 0.8f, 1.0f, 3.0f});
  row.top_k = static_cast<int32_t>(option({0.0f, 0.0f, 1.0f, 5.0f, 40.0f}));
  row.top_p = option({1.0f, 1.0f, 0.3f, 0.95f});
  row.min_p = option({0.0f, 0.0f, 0.05f, 0.5f});
  row.typical_p = option({1.0f, 1.0f, 0.7f});
  row.repetition_penalty = option({1.0f, 1.3f});
  row.presence_penalty = option({0.0f, 0.5f});
  row.frequency_penalty = option({0.0f, -0.2f});
  row.history = history.data();
  row.history_length = trial % 2 == 0 ? 30 : 0;
  row.prompt_length = trial % 4 == 0 ? 10 : 0;
  row.bias_ids = bias_ids;
  row.bias_values = bias_values;
  row.bias_length = vocab_size >= 3 && trial % 3 != 1 ? 3 : 0;
  row.mask = trial % 5 == 4 ? mask.data() : nullptr;
  row.num_top = vocab_size < 20 ? vocab_size : 20;

  const Array<uint8_t> scratch(sample_scratch_bytes(vocab_size));
  digest(text("sample %d tokens, trial %d", vocab_size, trial), [&](auto, Hash& hash) {
    Array<int32_t> token(1);
    Array<float> logprob(1);
    Array<int32_t> top_ids(static_cast<size_t>(row.num_top));
    Array<float> top_logprobs(static_cast<size_t>(row.num_top));
    kernels->sample(
        {row, vocab_size, scratch.data(), token.data(), logprob.data(), top_ids.data(), top_logprobs.data()});
    hash.add(token);
    hash.add(logprob);
    hash.add(top_ids);
    hash.add(top_logprobs);
  });
}

void digest_all() {
  digest_embeddings();
  digest_quantize_rows();
  digest_quantize_panel();
  digest_linear();
  digest_elementwise();
  digest_rope();
  for (const KvDType kv_dtype : {KvDType::kF32, KvDType::kF16, KvDType::kInt8}) {
    digest_kv_extremes(kv_dtype);
    for (const AttentionCase& c :
         {AttentionCase{4, 4, 16, 16, 0}, AttentionCase{6, 2, 20, 4, 100}, AttentionCase{3, 1, 64, 32, 0},
          AttentionCase{8, 2, 40, 7, 9}, AttentionCase{7, 1, 9, 7, 0}, AttentionCase{40, 1, 16, 16, 0},
          AttentionCase{4, 2, 32, 16, 70}, AttentionCase{4, 2, 24, 32, 33}}) {
      digest_attention(c, kv_dtype);
    }
  }
  Random random(7);
  for (const int32_t vocab_size : {1, 5, 61, 1000, 32003}) {
    const int32_t num_trials = vocab_size == 1 || vocab_size > 1000 ? 8 : 40;
    for (int32_t trial = 0; trial < num_trials; trial++) digest_sample(vocab_size, trial, random);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool name_only = argc > 1 && strcmp(argv[1], "--isa") == 0;
  const int limit = name_only ? 2 : 1;
  kernels = select(argc > limit ? argv[limit] : nullptr);
  if (kernels == nullptr) {
    fprintf(stderr, "unknown instruction set %s\n", argv[limit]);
    return 2;
  }
  printf("%s\n", kernels->isa);
  if (!name_only) digest_all();
  return consistent ? 0 : 1;
}
