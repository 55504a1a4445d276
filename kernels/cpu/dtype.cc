// What callers outside the kernels need to know of storage types.
#include "dtype.inc"

namespace engine::kernels {

DTypeTraits dtype_traits(DType dtype) {
  if (dtype == DType::kF32) return {1, 4};
  if (dtype == DType::kF16 || dtype == DType::kBF16) return {1, 2};
  DTypeTraits traits = {0, 0};
  with_quantized(dtype, [&]<class T>() { traits = {T::kBlockSize, T::kBlockBytes}; });
  return traits;
}

void dequantize_row(float* out, DType dtype, const uint8_t* row, int32_t columns) {
  dequantize(out, dtype, row, columns);
}

}  // namespace engine::kernels
