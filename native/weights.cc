#include "native/weights.h"

#include <algorithm>
#include <cstring>

namespace engine {
namespace {

using kernels::DType;

// Between two looks at whether loading was cancelled.
constexpr size_t kReadAheadBytes = size_t{64} << 20;

size_t RowBytes(DType dtype, int32_t columns) {
  const kernels::DTypeTraits traits = kernels::dtype_traits(dtype);
  return static_cast<size_t>(columns / traits.block_size) * static_cast<size_t>(traits.block_bytes);
}

// Bytes from a weight's first to the end of its last value, in the file.
uint64_t Extent(const WeightInfo& weight) {
  if (weight.transposed_stride == 0) return static_cast<uint64_t>(weight.rows) * RowBytes(weight.dtype, weight.columns);
  const uint64_t values = static_cast<uint64_t>(weight.columns - 1) * static_cast<uint64_t>(weight.transposed_stride) +
                          static_cast<uint64_t>(weight.rows);
  return values * RowBytes(weight.dtype, 1);
}

// Which weights are norm weights or biases.
std::vector<bool> VectorsOf(const Plan& plan) {
  std::vector<bool> vectors(plan.weights.size());
  const auto mark = [&](int32_t id) {
    if (id >= 0) vectors[id] = true;
  };
  for (const Op& op : plan.ops) {
    if (const auto* rms = std::get_if<RmsNormOp>(&op)) {
      mark(rms->weight);
    } else if (const auto* layer = std::get_if<LayerNormOp>(&op)) {
      mark(layer->weight);
      mark(layer->bias);
    } else if (const auto* linear = std::get_if<LinearOp>(&op)) {
      mark(linear->bias);
    }
  }
  return vectors;
}

void CopyVector(float* out, const WeightInfo& weight, const uint8_t* stored) {
  if (weight.transposed_stride == 0) {
    kernels::dequantize_row(out, weight.dtype, stored, weight.columns);
    return;
  }
  const size_t step = static_cast<size_t>(weight.transposed_stride) * RowBytes(weight.dtype, 1);
  for (int32_t c = 0; c < weight.columns; c++) kernels::dequantize_row(out + c, weight.dtype, stored + c * step, 1);
}

// out [rows, columns] = the transpose of `stored`, whose rows are `stride` values apart; in tiles, so that both sides
// are read and written in whole cache lines.
template <class T>
void CopyTransposedAs(uint8_t* out, const WeightInfo& weight, const uint8_t* stored) {
  constexpr int32_t kTile = 32;
  const auto columns = static_cast<size_t>(weight.columns), stride = static_cast<size_t>(weight.transposed_stride);
  for (int32_t c0 = 0; c0 < weight.columns; c0 += kTile) {
    const int32_t c1 = std::min(c0 + kTile, weight.columns);
    for (int32_t r0 = 0; r0 < weight.rows; r0 += kTile) {
      const int32_t r1 = std::min(r0 + kTile, weight.rows);
      for (int32_t r = r0; r < r1; r++) {
        for (int32_t c = c0; c < c1; c++) {
          // A file may place values at any byte.
          std::memcpy(out + (r * columns + c) * sizeof(T), stored + (c * stride + r) * sizeof(T), sizeof(T));
        }
      }
    }
  }
}

void CopyTransposed(uint8_t* out, const WeightInfo& weight, const uint8_t* stored) {
  if (RowBytes(weight.dtype, 1) == sizeof(float)) {
    CopyTransposedAs<uint32_t>(out, weight, stored);
  } else {
    CopyTransposedAs<uint16_t>(out, weight, stored);
  }
}

}  // namespace

Failure WeightStore::Load(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
                          const std::atomic<bool>& cancelled) {
  files_.resize(files.size());
  for (size_t i = 0; i < files.size(); i++) {
    if (Failure failure = files_[i].Open(files[i])) return failure;
  }
  for (const MappedFile& file : files_) {
    for (size_t offset = 0; offset < file.size(); offset += kReadAheadBytes) {
      if (cancelled.load(std::memory_order_relaxed)) return Disposed();
      file.ReadAhead(offset, std::min(kReadAheadBytes, file.size() - offset));
    }
  }

  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    const MappedFile& file = files_[weight.file];
    const uint64_t extent = Extent(weight), offset = static_cast<uint64_t>(weight.offset);
    if (extent > file.size() || offset > file.size() - extent) {
      return {"FORMAT_INVALID",
              {{"path", files[weight.file].path},
               {"field", "the end of tensor " + names[id]},
               {"value", static_cast<double>(offset) + static_cast<double>(extent)},
               {"problem", "past the end of the file at byte " + std::to_string(file.size())}}};
    }
  }

  const std::vector<bool> vectors = VectorsOf(plan);
  Carver measure(nullptr);
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    const size_t row_bytes = RowBytes(weight.dtype, weight.columns);
    if (vectors[id]) measure.Take<float>(weight.columns);
    if (weight.transposed_stride > 0) measure.Take<uint8_t>(weight.rows * row_bytes);
  }
  if (!copies_.Reserve(measure.bytes())) return OutOfMemory(measure.bytes(), "the copy of transposed weights");

  Carver carve(copies_.data());
  vectors_.resize(plan.weights.size());
  for (size_t id = 0; id < plan.weights.size(); id++) {
    if (cancelled.load(std::memory_order_relaxed)) return Disposed();
    const WeightInfo& weight = plan.weights[id];
    const uint8_t* stored = files_[weight.file].data() + weight.offset;
    const size_t row_bytes = RowBytes(weight.dtype, weight.columns);
    if (vectors[id]) {
      auto* copy = carve.Take<float>(weight.columns);
      CopyVector(copy, weight, stored);
      vectors_[id] = copy;
    }
    if (weight.transposed_stride > 0) {
      auto* copy = carve.Take<uint8_t>(weight.rows * row_bytes);
      CopyTransposed(copy, weight, stored);
      stored = copy;
    }
    matrices_.push_back({stored, weight.dtype, weight.rows, weight.columns, row_bytes});
  }
  return {};
}

}  // namespace engine
