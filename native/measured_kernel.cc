#include "native/measured_kernel.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace engine {
namespace {

using kernels::DType;
using kernels::KvDType;
using kernels::Part;

constexpr int32_t kMaxRows = 1 << 20, kMaxColumns = 1 << 17, kMaxTokens = 1 << 12, kMaxThreads = 256;
constexpr int32_t kBlockSize = 16;  // positions of a KV block
constexpr int64_t kMaxCopies = 1 << 12;

// Vigna's xorshift64*, without its multiplication: fast, and random enough to be no pattern for a cache.
class Random {
 public:
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    return state_ ^= state_ >> 27;
  }

  // Bytes 0x20 … 0x3f: read as floats of any type they are normal and neither tiny nor large, read as codes they are
  // valid in every storage type.
  void Fill(uint8_t* out, size_t bytes) {
    constexpr uint64_t kRandom = 0x1f1f1f1f1f1f1f1f, kFixed = 0x2020202020202020;
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
      const uint64_t word = (Next() & kRandom) | kFixed;
      std::memcpy(out + i, &word, std::min(sizeof word, bytes - i));
    }
  }

  // −1 … 1
  void Fill(float* out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = static_cast<float>(static_cast<int32_t>(Next() >> 32)) * 0x1p-31f;
  }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15;
};

int64_t CopiesFor(const KernelRequest& request, uint64_t bytes) {
  return std::clamp<int64_t>(static_cast<int64_t>((request.cold_bytes + bytes - 1) / bytes), 1, kMaxCopies);
}

// The same bytes in every copy.
void Replicate(uint8_t* first, uint64_t bytes, int64_t copies) {
  for (int64_t i = 1; i < copies; i++) std::memcpy(first + static_cast<uint64_t>(i) * bytes, first, bytes);
}

class ReadKernel final : public MeasuredKernel {
 public:
  explicit ReadKernel(const KernelRequest& request)
      : request_(request),
        pieces_(static_cast<int64_t>(request.rows) * request.columns / kernels::kReadUnit),
        copies_(CopiesFor(request, Size())) {}

  void Carve(Carver* carver) override { data_ = carver->Take<uint8_t>(Size() * static_cast<uint64_t>(copies_)); }
  void Fill() override { Random().Fill(data_, Size() * static_cast<uint64_t>(copies_)); }
  void Run(int64_t run, Part part, int32_t) override {
    const uint8_t* copy = data_ + static_cast<uint64_t>(run % copies_) * Size();
    const int64_t begin = pieces_ * part.index / part.count, end = pieces_ * (part.index + 1) / part.count;
    request_.kernels->read_bytes(copy + begin * kernels::kReadUnit, (end - begin) * kernels::kReadUnit);
  }
  double bytes() const override { return static_cast<double>(Size()); }
  double operations() const override { return 0; }

 private:
  uint64_t Size() const { return static_cast<uint64_t>(pieces_ * kernels::kReadUnit); }

  const KernelRequest request_;
  const int64_t pieces_, copies_;
  uint8_t* data_ = nullptr;
};

// Multiply-adds in registers: of floats, or of codes if `bits` is not 0.
class MultiplyKernel final : public MeasuredKernel {
 public:
  MultiplyKernel(const KernelRequest& request, int32_t bits) : request_(request), bits_(bits) {}

  void Carve(Carver* carver) override { values_ = carver->Take<int8_t>(kernels::kDotValues); }
  void Fill() override { Random().Fill(reinterpret_cast<uint8_t*>(values_), kernels::kDotValues); }
  void Run(int64_t, Part part, int32_t) override {
    const auto rows = int64_t{request_.rows};
    const int64_t steps = rows * (part.index + 1) / part.count - rows * part.index / part.count;
    if (bits_ == 0) {
      request_.kernels->multiply_add(steps);
    } else {
      request_.kernels->multiply_codes(values_, bits_, steps);
    }
  }
  double bytes() const override { return 0; }
  double operations() const override {
    return 2.0 * request_.rows * static_cast<double>(bits_ == 0 ? kernels::kMultiplyAddStep : kernels::kDotStep);
  }

 private:
  const KernelRequest request_;
  const int32_t bits_;
  int8_t* values_ = nullptr;
};

class LinearKernel final : public MeasuredKernel {
 public:
  // `columns` are whole blocks.
  explicit LinearKernel(const KernelRequest& request) : request_(request) {
    const auto dtype = static_cast<DType>(request.dtype);
    const auto [block_size, block_bytes] = kernels::dtype_traits(dtype);
    const size_t panel_bytes = kernels::packed_panel_bytes(dtype, request.columns);
    row_bytes_ = static_cast<size_t>(request.columns / block_size) * static_cast<size_t>(block_bytes);
    chunk_ = block_size;
    // As in weights.cc.
    const bool own = kernels::stored_packed(dtype);
    const bool packed = own || (panel_bytes > 0 && request.rows >= kernels::kPanelRows);
    matrix_ = {nullptr, dtype, request.rows, request.columns, packed, packed ? panel_bytes : row_bytes_};
    num_panels_ = (request.rows - 1) / kernels::kPanelRows + 1;
    matrix_bytes_ = (matrix_.stride * static_cast<size_t>(packed ? num_panels_ : request.rows) + 63) / 64 * 64;
    copies_ = CopiesFor(request, matrix_bytes_);
    scratch_bytes_ = (kernels::scratch_bytes(request.tokens, request.columns, 1, 1) + 63) / 64 * 64;
  }

  void Carve(Carver* carver) override {
    const auto tokens = static_cast<uint64_t>(request_.tokens), columns = static_cast<uint64_t>(request_.columns);
    const uint64_t tiles = (tokens - 1) / kernels::kActivationTile + 1;
    const uint64_t codes = tiles * kernels::kActivationTile * columns;
    data_ = carver->Take<uint8_t>(matrix_bytes_ * static_cast<uint64_t>(copies_));
    x_ = carver->Take<float>(tokens * columns);
    out_ = carver->Take<float>(tokens * static_cast<uint64_t>(request_.rows));
    quantized_ = {.codes = carver->Take<int8_t>(codes),
                  .scales = carver->Take<float>(codes / static_cast<uint64_t>(chunk_)),
                  .sums = carver->Take<int32_t>(codes / kernels::kSumGroup + 1),
                  .scaled_sums = carver->Take<float>(codes / static_cast<uint64_t>(chunk_)),
                  .chunk = chunk_,
                  .columns = request_.columns};
    scratch_ = carver->Take<uint8_t>(scratch_bytes_ * static_cast<uint64_t>(request_.threads));
  }

  void Fill() override {
    Random random;
    if (!matrix_.packed || kernels::stored_packed(matrix_.dtype)) {
      random.Fill(data_, matrix_bytes_);
    } else {
      std::vector<uint8_t> rows(row_bytes_ * kernels::kPanelRows);
      for (int32_t panel = 0; panel < num_panels_; panel++) {
        random.Fill(rows.data(), rows.size());
        const int32_t count = std::min(kernels::kPanelRows, request_.rows - panel * kernels::kPanelRows);
        request_.kernels->pack(data_ + static_cast<size_t>(panel) * matrix_.stride,
                               {rows.data(), matrix_.dtype, count, request_.columns, false, row_bytes_}, 0, 1);
      }
    }
    Replicate(data_, matrix_bytes_, copies_);
    random.Fill(x_, static_cast<size_t>(request_.tokens) * static_cast<size_t>(request_.columns));
    if (chunk_ > 1) {
      request_.kernels->quantize_rows(quantized_, x_, request_.tokens, {0, request_.tokens, 0, request_.columns});
    }
  }

  void Run(int64_t run, Part part, int32_t thread) override {
    kernels::Matrix weight = matrix_;
    weight.data = data_ + static_cast<uint64_t>(run % copies_) * matrix_bytes_;
    request_.kernels->linear({.out = out_,
                              .x = x_,
                              .q = chunk_ > 1 ? &quantized_ : nullptr,
                              .num_rows = request_.tokens,
                              .weight = weight,
                              .bias = nullptr,
                              .scratch = scratch_ + scratch_bytes_ * static_cast<size_t>(thread)},
                             part);
  }

  double bytes() const override { return static_cast<double>(matrix_bytes_); }
  double operations() const override { return 2.0 * request_.rows * request_.columns * request_.tokens; }
  int32_t max_chunks() const override { return (request_.rows - 1) / kernels::kShareUnit + 1; }

 private:
  const KernelRequest request_;
  kernels::Matrix matrix_ = {};
  int32_t num_panels_ = 0;
  int32_t chunk_ = 1;  // values that share a scale of activations; 1: they stay floats
  size_t row_bytes_ = 0, matrix_bytes_ = 0, scratch_bytes_ = 0;
  int64_t copies_ = 1;
  uint8_t* data_ = nullptr;
  float *x_ = nullptr, *out_ = nullptr;
  kernels::QuantizedRows quantized_ = {};
  uint8_t* scratch_ = nullptr;
};

class AttentionKernel final : public MeasuredKernel {
 public:
  explicit AttentionKernel(const KernelRequest& request) : request_(request) {
    const int32_t blocks_per_sequence = (request.rows - 1) / kBlockSize + 1;
    num_blocks_ = int64_t{blocks_per_sequence} * request.tokens;
    bytes_ = static_cast<uint64_t>(num_blocks_ * kKvHeads) *
             kernels::kv_block_bytes(static_cast<KvDType>(request.dtype), kHeadDim, kBlockSize);
    copies_ = CopiesFor(request, 2 * bytes_);
    scratch_bytes_ = (kernels::scratch_bytes(request.tokens, request.columns, kHeads, kHeadDim) + 63) / 64 * 64;
    exchange_floats_ = kernels::attention_exchange_floats(kHeads, kHeadDim, request.rows);
    for (int32_t i = 0; i <= request.tokens; i++) query_start_.push_back(i);
    context_lens_.assign(static_cast<size_t>(request.tokens), request.rows);
    for (int32_t i = 0; i < num_blocks_; i++) block_tables_.push_back(i);
  }

  void Carve(Carver* carver) override {
    const uint64_t values = static_cast<uint64_t>(request_.tokens) * static_cast<uint64_t>(request_.columns);
    keys_ = carver->Take<uint8_t>(bytes_ * static_cast<uint64_t>(copies_));
    values_ = carver->Take<uint8_t>(bytes_ * static_cast<uint64_t>(copies_));
    q_ = carver->Take<float>(values);
    out_ = carver->Take<float>(values);
    exchange_ = carver->Take<float>(static_cast<uint64_t>(exchange_floats_));
    scratch_ = carver->Take<uint8_t>(scratch_bytes_ * static_cast<uint64_t>(request_.threads));
  }

  void Fill() override {
    Random random;
    random.Fill(keys_, bytes_);
    random.Fill(values_, bytes_);
    Replicate(keys_, bytes_, copies_);
    Replicate(values_, bytes_, copies_);
    random.Fill(q_, static_cast<size_t>(request_.tokens) * static_cast<size_t>(request_.columns));
  }

  void Run(int64_t run, Part part, int32_t thread) override {
    const uint64_t copy = static_cast<uint64_t>(run % copies_) * bytes_;
    request_.kernels->attention({.out = out_,
                                 .q = q_,
                                 .query_start = query_start_.data(),
                                 .context_lens = context_lens_.data(),
                                 .block_tables = block_tables_.data(),
                                 .num_seqs = request_.tokens,
                                 .max_blocks = static_cast<int32_t>(num_blocks_ / request_.tokens),
                                 .num_heads = kHeads,
                                 .window = 0,
                                 .scale = 0.125f,
                                 .cache = {.keys = keys_ + copy,
                                           .values = values_ + copy,
                                           .dtype = static_cast<KvDType>(request_.dtype),
                                           .num_kv_heads = kKvHeads,
                                           .head_dim = kHeadDim,
                                           .block_size = kBlockSize},
                                 .exchange = {exchange_, exchange_floats_, done_},
                                 .scratch = scratch_ + scratch_bytes_ * static_cast<size_t>(thread)},
                                part);
  }

  double bytes() const override { return 2 * static_cast<double>(bytes_); }
  double operations() const override { return 4.0 * request_.columns * request_.rows * request_.tokens; }
  // As in step_work.cc.
  int32_t max_chunks() const override { return std::max(request_.tokens * kKvHeads, request_.threads); }

 private:
  const KernelRequest request_;
  int64_t num_blocks_ = 0, copies_ = 1, exchange_floats_ = 0;
  uint64_t bytes_ = 0;  // of keys, and of values
  size_t scratch_bytes_ = 0;
  std::vector<int32_t> query_start_, context_lens_, block_tables_;
  uint8_t *keys_ = nullptr, *values_ = nullptr, *scratch_ = nullptr;
  float *q_ = nullptr, *out_ = nullptr, *exchange_ = nullptr;
  std::atomic<int32_t> done_[kernels::kMaxSharedTiles] = {};
};

// Activations lie in the caches, as in a step.
class RowsKernel final : public MeasuredKernel {
 public:
  RowsKernel(const KernelRequest& request, bool norm) : request_(request), norm_(norm) {}

  void Carve(Carver* carver) override {
    out_ = carver->Take<float>(Count());
    x_ = carver->Take<float>(Count());
    y_ = carver->Take<float>(norm_ ? static_cast<uint64_t>(request_.columns) : Count());
  }
  void Fill() override {
    Random random;
    random.Fill(x_, Count());
    random.Fill(y_, norm_ ? static_cast<uint64_t>(request_.columns) : Count());
  }
  void Run(int64_t, Part part, int32_t) override {
    if (norm_) {
      request_.kernels->rms_norm(out_, x_, y_, request_.tokens, request_.columns, 1e-5f, part);
    } else {
      request_.kernels->silu_mul(out_, x_, y_, static_cast<int64_t>(Count()), part);
    }
  }
  double bytes() const override { return static_cast<double>(Count() * sizeof(float)) * (norm_ ? 2 : 3); }
  double operations() const override { return 0; }
  int32_t max_chunks() const override { return request_.tokens; }

 private:
  uint64_t Count() const { return static_cast<uint64_t>(request_.tokens) * static_cast<uint64_t>(request_.columns); }

  const KernelRequest request_;
  const bool norm_;
  float *out_ = nullptr, *x_ = nullptr, *y_ = nullptr;
};

bool Within(int32_t value, int32_t max) { return value >= 1 && value <= max; }

bool IsLinear(const KernelRequest& request) {
  const auto dtype = static_cast<DType>(request.dtype);
  const int32_t block_size = kernels::dtype_traits(dtype).block_size;
  if (block_size == 0 || request.columns % block_size != 0) return false;
  const bool own = kernels::stored_packed(dtype);
  return !own || request.columns % (dtype == DType::kInt4G128 ? 128 : dtype == DType::kInt4G64 ? 64 : 32) == 0;
}

}  // namespace

std::unique_ptr<MeasuredKernel> MakeMeasuredKernel(const KernelRequest& request) {
  if (request.kernels == nullptr || !Within(request.rows, kMaxRows) || !Within(request.columns, kMaxColumns) ||
      !Within(request.tokens, kMaxTokens) || !Within(request.threads, kMaxThreads)) {
    return nullptr;
  }
  const std::string& what = request.what;
  if (what == "read" && int64_t{request.rows} * request.columns >= kernels::kReadUnit) {
    return std::make_unique<ReadKernel>(request);
  }
  if (what == "multiply_add") return std::make_unique<MultiplyKernel>(request, 0);
  for (const int32_t bits : {4, 5, 6, 8}) {
    if (what == "dot" + std::to_string(bits)) return std::make_unique<MultiplyKernel>(request, bits);
  }
  if (what == "linear" && IsLinear(request)) return std::make_unique<LinearKernel>(request);
  if (what == "attention" && request.columns == kHeads * kHeadDim && request.dtype >= 0 &&
      request.dtype <= static_cast<int32_t>(KvDType::kInt8)) {
    return std::make_unique<AttentionKernel>(request);
  }
  if (what == "rms_norm" || what == "silu_mul") return std::make_unique<RowsKernel>(request, what == "rms_norm");
  return nullptr;
}

}  // namespace engine
