// Packed matrices: panels of 16 rows, one after another, in the order in which kernels read them. The last panel is
// padded to 16 rows. A panel is a header (kHeaderBytes) and units of kUnitValues values of k: a unit is kFactorBytes of
// scales, then kCodeBytes of codes for every 32 values. The last unit may hold fewer values; its factors are whole.
// Everything begins on a cache line.
//
// Codes of 32 values: step j (0 … 7) is four values of k of every row, byte (r, b) at 4 · r + b belonging to row r and
// k = 4 · j + b.
//   4 bits   4 lines; line j holds step j in the low nibbles and step j + 4 in the high ones
//   5 bits   the same 4 lines of the low bits; a line with bit j of a byte the fifth bit of step j
//   6 bits   the same 4 lines; two lines with the high two bits of step j at bits 2 · (j % 4) of line j / 4
//   8 bits   8 lines, signed
// Factors:
//   q4_0 q8_0             d f16 [2 blocks][16]
//   q4_k q5_k             d f16 [16], −dmin f16 [16]; scales u8 [4][16][2], mins u8 [4][16][2]: of groups 2i and 2i + 1
//   q6_k                  d f16 [16], 32 bytes unused; scales s8 [8][16][2]
//   int8 int4_sym         c u8 [4 groups][16]
//   int4 int4_g64 _g128   c u8 [2 groups][16], z u8 [2][16]
// Headers of our own types: d bf16 [16], m bf16 [16] (zeros without mins). Their weight is d · c · q − m · z; of
// int4_sym d · c · (q − 8). With 8-bit d and m all products are exact in float32.
#pragma once

#include "kernels.h"

namespace engine::kernels {

struct PackedLayout {
  int32_t header_bytes;  // 0 or 64
  int32_t unit_values;
  int32_t factor_bytes;  // of a unit; 0: the type has no packed form
  int32_t code_bytes;    // of 32 values

  constexpr size_t panel_bytes(int32_t columns) const {
    const int32_t units = (columns + unit_values - 1) / unit_values;
    return static_cast<size_t>(header_bytes) + static_cast<size_t>(units) * static_cast<size_t>(factor_bytes) +
           static_cast<size_t>(columns / 32) * static_cast<size_t>(code_bytes);
  }
};

constexpr PackedLayout packed_layout(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return {0, 64, 64, 256};
    case DType::kQ8_0:
      return {0, 64, 64, 512};
    case DType::kQ4_K:
      return {0, 256, 320, 256};
    case DType::kQ5_K:
      return {0, 256, 320, 320};
    case DType::kQ6_K:
      return {0, 256, 320, 384};
    case DType::kInt8:
      return {64, 128, 64, 512};
    case DType::kInt4:
      return {64, 64, 64, 256};
    case DType::kInt4G64:
      return {64, 128, 64, 256};
    case DType::kInt4G128:
      return {64, 256, 64, 256};
    case DType::kInt4Sym:
      return {64, 128, 64, 256};
    default:
      return {};
  }
}

}  // namespace engine::kernels
