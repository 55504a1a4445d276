// What callers outside the kernels need to know of storage types.
#include "dtype.inc"

#include "packed.h"

namespace engine::kernels {

DTypeTraits dtype_traits(DType dtype) {
  if (dtype == DType::kF32) return {1, 4};
  if (dtype == DType::kF16 || dtype == DType::kBF16) return {1, 2};
  if (stored_packed(dtype)) return {32, packed_layout(dtype).code_bytes / kPanelRows};
  DTypeTraits traits = {0, 0};
  with_quantized(dtype, [&]<class T>() { traits = {T::kBlockSize, T::kBlockBytes}; });
  return traits;
}

size_t packed_panel_bytes(DType dtype, int32_t columns) {
  const PackedLayout layout = packed_layout(dtype);
  return layout.factor_bytes == 0 ? 0 : layout.panel_bytes(columns);
}

bool stored_packed(DType dtype) { return packed_layout(dtype).header_bytes > 0; }

void dequantize_row(float* out, DType dtype, const uint8_t* row, int32_t columns) {
  dequantize(out, dtype, row, columns);
}

}  // namespace engine::kernels
