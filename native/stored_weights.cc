#include "native/stored_weights.h"

#include <algorithm>
#include <cstring>

namespace engine {
namespace {

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

}  // namespace

Failure OpenWeightFiles(const Plan& plan, const std::vector<FileStamp>& files, const std::vector<std::string>& names,
                        std::vector<MappedFile>* mapped) {
  (*mapped).resize(files.size());
  for (size_t i = 0; i < files.size(); i++) {
    if (Failure failure = (*mapped)[i].Open(files[i])) return failure;
  }
  for (size_t id = 0; id < plan.weights.size(); id++) {
    const WeightInfo& weight = plan.weights[id];
    const MappedFile& file = (*mapped)[weight.file];
    const uint64_t extent = weight.extent(), offset = static_cast<uint64_t>(weight.offset);
    if (extent > file.size() || offset > file.size() - extent) {
      return {"FORMAT_INVALID",
              {{"path", files[weight.file].path},
               {"field", "the end of tensor " + names[id]},
               {"value", static_cast<double>(offset) + static_cast<double>(extent)},
               {"problem", "past the end of the file at byte " + std::to_string(file.size())}}};
    }
  }
  return {};
}

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
  const auto value_bytes = static_cast<size_t>(kernels::dtype_traits(weight.dtype).block_bytes);
  const size_t step = static_cast<size_t>(weight.transposed_stride) * value_bytes;
  for (int32_t c = 0; c < weight.columns; c++) kernels::dequantize_row(out + c, weight.dtype, stored + c * step, 1);
}

void CopyTransposed(uint8_t* out, const WeightInfo& weight, const uint8_t* stored) {
  if (kernels::dtype_traits(weight.dtype).block_bytes == sizeof(float)) {
    CopyTransposedAs<uint32_t>(out, weight, stored);
  } else {
    CopyTransposedAs<uint16_t>(out, weight, stored);
  }
}

}  // namespace engine
