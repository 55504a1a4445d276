#include "native/weights.h"

#include <algorithm>
#include <cstring>

#include "native/pack_weights.h"

namespace engine {
namespace {

using kernels::DType;

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

// Which matrices meet 8-bit activations.
std::vector<bool> MetByCodes(const Plan& plan) {
  std::vector<bool> met(plan.weights.size());
  for (const Op& op : plan.ops) {
    if (const auto* linear = std::get_if<LinearOp>(&op); linear != nullptr && linear->activations == 1) {
      met[linear->weight] = true;
    }
  }
  return met;
}

// Which matrices are read from end to end by every step, unlike embeddings.
std::vector<bool> ReadWhole(const Plan& plan) {
  std::vector<bool> read(plan.weights.size());
  for (const Op& op : plan.ops) {
    if (const auto* linear = std::get_if<LinearOp>(&op)) read[linear->weight] = true;
  }
  return read;
}

// A matrix is packed where that is asked for or makes products faster. One of few rows would be mostly padding.
bool WorthPacking(const WeightInfo& weight, bool met_by_codes) {
  if (weight.quantize_to != weight.dtype) return true;
  return met_by_codes && weight.rows >= kernels::kPanelRows && !kernels::stored_packed(weight.dtype) &&
         kernels::packed_panel_bytes(weight.dtype, weight.columns) > 0;
}

size_t NumPanels(const WeightInfo& weight) { return static_cast<size_t>((weight.rows - 1) / kernels::kPanelRows + 1); }

void CopyVector(float* out, const WeightInfo& weight, const uint8_t* stored) {
  if (weight.transposed_stride == 0) {
    kernels::dequantize_row(out, weight.dtype, stored, weight.columns);
    return;
  }
  const auto value_bytes = static_cast<size_t>(kernels::dtype_traits(weight.dtype).block_bytes);
  const size_t step = static_cast<size_t>(weight.transposed_stride) * value_bytes;
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
  if (kernels::dtype_traits(weight.dtype).block_bytes == sizeof(float)) {
    CopyTransposedAs<uint32_t>(out, weight, stored);
  } else {
    CopyTransposedAs<uint16_t>(out, weight, stored);
  }
}

}  // namespace

Failure WeightStore::Load(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
                          const kernels::Kernels& kernels, int32_t num_threads, const std::atomic<bool>& cancelled) {
  files_.resize(files.size());
  for (size_t i = 0; i < files.size(); i++) {
    if (Failure failure = files_[i].Open(files[i])) return failure;
  }
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    const MappedFile& file = files_[weight.file];
    const uint64_t extent = weight.extent(), offset = static_cast<uint64_t>(weight.offset);
    if (extent > file.size() || offset > file.size() - extent) {
      return {"FORMAT_INVALID",
              {{"path", files[weight.file].path},
               {"field", "the end of tensor " + names[id]},
               {"value", static_cast<double>(offset) + static_cast<double>(extent)},
               {"problem", "past the end of the file at byte " + std::to_string(file.size())}}};
    }
  }

  const std::vector<bool> vectors = VectorsOf(plan), met = MetByCodes(plan);
  Carver measure(nullptr);
  Carve(plan, vectors, met, &measure);
  if (!copies_.Reserve(measure.bytes())) return OutOfMemory(measure.bytes(), "packed and copied weights");
  Carver carve(copies_.data());
  Carve(plan, vectors, met, &carve);

  const std::vector<bool> read_whole = ReadWhole(plan);
  std::vector<BringJob> jobs;
  for (size_t id = 0; id < plan.weights.size(); id++) {
    if (cancelled.load(std::memory_order_relaxed)) return Disposed();
    const WeightInfo& weight = plan.weights[id];
    const MappedFile& file = files_[weight.file];
    const uint8_t* stored = file.data() + weight.offset;
    kernels::Matrix& matrix = matrices_[id];
    const size_t panel_bytes = matrix.packed ? matrix.stride : matrix.stride * kernels::kPanelRows;
    // Before the matrices are brought in: up to 2 MB around what is touched come with it, and are given back with them.
    if (vectors[id]) CopyVector(vectors_[id], weight, stored);
    if (matrix.data == nullptr) {
      matrix.data = stored;
      if (read_whole[id]) jobs.push_back({&weight, &names[id], &file, nullptr, panel_bytes});
    } else if (matrix.packed) {
      jobs.push_back({&weight, &names[id], &file, const_cast<uint8_t*>(matrix.data), panel_bytes});
    } else {
      file.Populate(weight.offset, weight.extent());
      CopyTransposed(const_cast<uint8_t*>(matrix.data), weight, stored);
      file.Release(weight.offset, weight.extent());
    }
  }
  return BringIn(kernels, jobs, num_threads, cancelled);
}

void WeightStore::Carve(const Plan& plan, const std::vector<bool>& vectors, const std::vector<bool>& met,
                        Carver* carver) {
  vectors_.assign(plan.weights.size(), nullptr);
  matrices_.clear();
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    kernels::Matrix matrix = {nullptr, weight.quantize_to, weight.rows, weight.columns, false, weight.row_bytes()};
    if (vectors[id]) vectors_[id] = carver->Take<float>(weight.columns);
    if (WorthPacking(weight, met[id]) || kernels::stored_packed(weight.dtype)) {
      matrix.packed = true;
      matrix.stride = kernels::packed_panel_bytes(weight.quantize_to, weight.columns);
    }
    if (WorthPacking(weight, met[id])) {
      matrix.data = carver->Take<uint8_t>(NumPanels(weight) * matrix.stride);
    } else if (weight.transposed_stride > 0) {
      matrix.data = carver->Take<uint8_t>(weight.rows * matrix.stride);
    }
    matrices_.push_back(matrix);
  }
}

}  // namespace engine
