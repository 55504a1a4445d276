// Weights quantised to our own types, panel by panel: for loading a model with --quantize and for writing files.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"
#include "native/plan.h"

namespace engine {

// Whether a matrix with rows of `columns` values can be stored as `target`, one of our own types.
bool CanQuantize(kernels::DType target, int32_t columns);

// Bytes of a panel, 16 rows, of a matrix that can be stored as `target`.
size_t QuantizedPanelBytes(kernels::DType target, int32_t columns);

// Sums over quantised weights.
struct QuantizeSums {
  double squared_error = 0;
  double squared_sum = 0;
};

// What errors of a matrix's weights do to its outputs, as far as calibration has shown (native/gptq.h).
struct ErrorModel {
  const float* weights = nullptr;   // [columns]
  const float* feedback = nullptr;  // [columns, columns]
};

// One thread's memory for quantising panels of up to `columns` columns.
class PanelQuantizer {
 public:
  // Throws std::bad_alloc.
  PanelQuantizer(const kernels::Kernels& kernels, int32_t columns);

  // Panel number `panel` of `weight`, whose first byte is at `source`, to `out`. `sums` are added to and may be
  // null. WEIGHT_NOT_FINITE.
  Failure Quantize(const WeightInfo& weight, const std::string& name, const uint8_t* source, kernels::DType target,
                   int32_t panel, const ErrorModel& errors, uint8_t* out, QuantizeSums* sums);

 private:
  void ReadRows(const WeightInfo& weight, const uint8_t* source, int32_t first);

  const kernels::Kernels& kernels_;
  std::vector<float> rows_;  // [16, columns]
  std::vector<float> scratch_;
};

// Panels first … first + count − 1, on `threads` threads, one after another at out. Rows past the matrix's last are
// zeros. WEIGHT_NOT_FINITE, OUT_OF_MEMORY, and ABORTED once `cancelled` is set. Throws std::bad_alloc.
Failure QuantizePanels(const kernels::Kernels& kernels, const WeightInfo& weight, const std::string& name,
                       const uint8_t* source, kernels::DType target, int32_t first, int32_t count, int32_t threads,
                       const ErrorModel& errors, const std::atomic<bool>& cancelled, uint8_t* out, QuantizeSums* sums);

struct QuantizeRequest {
  const kernels::Kernels* kernels;
  FileStamp file;
  std::string name;   // of the tensor, for messages
  WeightInfo weight;  // its file is 0
  kernels::DType target;
  int32_t first_panel;
  int32_t num_panels;
  int32_t threads;
  ErrorModel errors;
};

// The same from a file, which is mapped for the time of the call; `out` has room for all panels, out_bytes. Also what
// MappedFile::Open fails with, FORMAT_INVALID, INTERNAL.
Failure QuantizeMatrix(const QuantizeRequest& request, const std::atomic<bool>& cancelled, uint8_t* out,
                       size_t out_bytes, QuantizeSums* sums);

}  // namespace engine
