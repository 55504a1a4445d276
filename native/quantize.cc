#include "native/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "kernels/cpu/half.h"
#include "kernels/cpu/quantize_panel.h"

namespace engine {
namespace {

using kernels::DType;
using kernels::kPanelRows;
using kernels::PanelLayout;

float ReadBf16(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return kernels::float_from_bf16(bits);
}

// Adds the squares of `rows` [16, columns] and of what the panel differs from them by.
void AddSums(const PanelLayout& layout, const uint8_t* panel, const float* rows, int32_t columns, QuantizeSums* sums) {
  const size_t bytes_per_group = kernels::group_bytes(layout);
  const int32_t bias = layout.bits == 4 ? layout.lowest : 0;
  const uint8_t* unit = panel + kernels::kLineBytes;
  for (int32_t g = 0; g < columns / layout.group_size; g++) {
    const int32_t place = g % layout.groups_per_unit;
    if (place == 0 && g > 0) {
      unit += kernels::kLineBytes + static_cast<size_t>(layout.groups_per_unit) * bytes_per_group;
    }
    const uint8_t* factors = unit + place * kPanelRows;
    const uint8_t* codes = unit + kernels::kLineBytes + static_cast<size_t>(place) * bytes_per_group;
    for (int32_t r = 0; r < kPanelRows; r++) {
      const float scale = ReadBf16(panel + 2 * r) * static_cast<float>(factors[r]);
      const float shift = layout.mins ? ReadBf16(panel + 2 * (kPanelRows + r)) *
                                            static_cast<float>(factors[layout.groups_per_unit * kPanelRows + r])
                                      : 0.0f;
      const float* row = rows + static_cast<size_t>(r) * static_cast<size_t>(columns) + g * layout.group_size;
      double error = 0, square = 0;
      for (int32_t k = 0; k < layout.group_size; k++) {
        const int32_t block = k / kernels::kCodeBlock, i = k % kernels::kCodeBlock;
        const int32_t position = layout.bits == 8 ? i : i % 16;
        const uint8_t byte = codes[(block * layout.bits + position / 4) * kernels::kLineBytes + 4 * r + position % 4];
        const int32_t code = layout.bits == 8 ? static_cast<int8_t>(byte) : (i < 16 ? byte & 15 : byte >> 4) + bias;
        const double difference = row[k] - (static_cast<double>(scale) * code - shift);
        error += difference * difference;
        square += static_cast<double>(row[k]) * row[k];
      }
      sums->squared_error += error;
      sums->squared_sum += square;
    }
  }
}

Failure NotFinite(const std::string& name, int32_t row, int32_t column, float value) {
  return {"WEIGHT_NOT_FINITE",
          {{"tensor", name},
           {"row", static_cast<double>(row)},
           {"column", static_cast<double>(column)},
           {"value", std::string(std::isnan(value) ? "NaN"
                                 : value > 0       ? "Infinity"
                                                   : "-Infinity")}}};
}

}  // namespace

bool CanQuantize(DType target, int32_t columns) {
  const PanelLayout layout = kernels::panel_layout(target);
  return layout.group_size > 0 && columns > 0 && columns % layout.group_size == 0;
}

size_t QuantizedPanelBytes(DType target, int32_t columns) { return kernels::packed_panel_bytes(target, columns); }

PanelQuantizer::PanelQuantizer(const kernels::Kernels& kernels, int32_t columns)
    : kernels_(kernels),
      rows_(static_cast<size_t>(kPanelRows) * static_cast<size_t>(columns)),
      scratch_(kernels::quantize_scratch_floats(columns)) {}

// Rows first … first + 15 as floats, zeros past the last.
void PanelQuantizer::ReadRows(const WeightInfo& weight, const uint8_t* source, int32_t first) {
  const auto columns = static_cast<size_t>(weight.columns);
  const int32_t count = std::min(kPanelRows, weight.rows - first);
  std::fill(rows_.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(count) * columns), rows_.end(), 0.0f);
  if (weight.transposed_stride == 0) {
    const size_t row_bytes = weight.row_bytes();
    for (int32_t r = 0; r < count; r++) {
      kernels::dequantize_row(rows_.data() + static_cast<size_t>(r) * columns, weight.dtype,
                              source + static_cast<size_t>(first + r) * row_bytes, weight.columns);
    }
    return;
  }
  const auto value_bytes = static_cast<size_t>(kernels::dtype_traits(weight.dtype).block_bytes);
  for (size_t c = 0; c < columns; c++) {
    float values[kPanelRows];
    const size_t place = c * static_cast<size_t>(weight.transposed_stride) + static_cast<size_t>(first);
    kernels::dequantize_row(values, weight.dtype, source + place * value_bytes, count);
    for (int32_t r = 0; r < count; r++) rows_[static_cast<size_t>(r) * columns + c] = values[r];
  }
}

Failure PanelQuantizer::Quantize(const WeightInfo& weight, const std::string& name, const uint8_t* source, DType target,
                                 int32_t panel, const ErrorModel& errors, uint8_t* out, QuantizeSums* sums) {
  const int32_t first = panel * kPanelRows;
  rows_.resize(static_cast<size_t>(kPanelRows) * static_cast<size_t>(weight.columns));
  ReadRows(weight, source, first);
  for (size_t i = 0; i < rows_.size(); i++) {
    if (std::isfinite(rows_[i])) continue;
    const auto columns = static_cast<size_t>(weight.columns);
    return NotFinite(name, first + static_cast<int32_t>(i / columns), static_cast<int32_t>(i % columns), rows_[i]);
  }
  kernels_.quantize_panel({.out = out,
                           .dtype = target,
                           .rows = rows_.data(),
                           .columns = weight.columns,
                           .weights = errors.weights,
                           .feedback = errors.feedback,
                           .scratch = scratch_.data()});
  if (sums != nullptr) AddSums(kernels::panel_layout(target), out, rows_.data(), weight.columns, sums);
  return {};
}

Failure QuantizePanels(const kernels::Kernels& kernels, const WeightInfo& weight, const std::string& name,
                       const uint8_t* source, DType target, int32_t first, int32_t count, int32_t threads,
                       const ErrorModel& errors, const std::atomic<bool>& cancelled, uint8_t* out, QuantizeSums* sums) {
  const size_t panel_bytes = QuantizedPanelBytes(target, weight.columns);
  // Sums are added in the order of panels, so that they do not depend on the number of threads.
  std::vector<QuantizeSums> panel_sums(static_cast<size_t>(count));
  std::atomic<int32_t> next = 0, failed_at = count;
  std::mutex mutex;
  Failure failure;  // of panel failed_at, the first that fails
  const auto fail = [&](int32_t index, Failure found) {
    const std::lock_guard lock(mutex);
    if (index >= failed_at && failure) return;
    failed_at = index;
    failure = std::move(found);
  };
  const auto work = [&] {
    try {
      PanelQuantizer quantizer(kernels, weight.columns);
      while (!cancelled.load(std::memory_order_relaxed)) {
        const int32_t i = next.fetch_add(1);
        if (i >= failed_at) return;
        const auto index = static_cast<size_t>(i);
        Failure found = quantizer.Quantize(weight, name, source, target, first + i, errors, out + index * panel_bytes,
                                           sums == nullptr ? nullptr : &panel_sums[index]);
        if (found) return fail(i, std::move(found));
      }
    } catch (const std::bad_alloc&) {
      fail(0, OutOfMemory(kernels::quantize_scratch_floats(weight.columns) * sizeof(float), "rows to be quantised"));
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int32_t i = 1; i < std::min(threads, count); i++) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // A limit on threads: fewer do the same work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) return failure;
  if (cancelled.load(std::memory_order_relaxed)) return {"ABORTED", {}};
  for (const QuantizeSums& panel : panel_sums) {
    if (sums == nullptr) break;
    sums->squared_error += panel.squared_error;
    sums->squared_sum += panel.squared_sum;
  }
  return {};
}

Failure QuantizeMatrix(const QuantizeRequest& request, const std::atomic<bool>& cancelled, uint8_t* out,
                       size_t out_bytes, QuantizeSums* sums) {
  const WeightInfo& weight = request.weight;
  const int32_t block_size = kernels::dtype_traits(weight.dtype).block_size;
  const int32_t most_panels = weight.rows > 0 ? (weight.rows - 1) / kPanelRows + 1 : 0;
  const bool shaped = block_size > 0 && !CanQuantize(weight.dtype, weight.columns) && weight.columns > 0 &&
                      weight.columns % block_size == 0 &&
                      (weight.transposed_stride == 0 || (block_size == 1 && weight.transposed_stride >= weight.rows)) &&
                      CanQuantize(request.target, weight.columns);
  if (!shaped || weight.offset < 0 || request.threads < 1 || request.first_panel < 0 || request.num_panels < 1 ||
      request.num_panels > most_panels - request.first_panel ||
      out_bytes / static_cast<size_t>(request.num_panels) != QuantizedPanelBytes(request.target, weight.columns)) {
    return Internal("a matrix was quantised with wrong arguments");
  }
  MappedFile file;
  if (Failure failure = file.Open(request.file)) return failure;
  const uint64_t extent = weight.extent(), offset = static_cast<uint64_t>(weight.offset);
  if (extent > file.size() || offset > file.size() - extent) {
    return {"FORMAT_INVALID",
            {{"path", request.file.path},
             {"field", "the end of tensor " + request.name},
             {"value", static_cast<double>(offset) + static_cast<double>(extent)},
             {"problem", "past the end of the file at byte " + std::to_string(file.size())}}};
  }
  return QuantizePanels(*request.kernels, weight, request.name, file.data() + offset, request.target,
                        request.first_panel, request.num_panels, request.threads, request.errors, cancelled, out, sums);
}

}  // namespace engine
