// Our own storage types (kInt4 … kInt8) as the quantiser sees them; packed.h describes the panels.
#pragma once

#include "kernels.h"

namespace engine::kernels {
namespace {

inline constexpr int32_t kLineBytes = 64;
inline constexpr int32_t kCodeBlock = 32;  // values of k whose codes lie together

struct PanelLayout {
  int32_t group_size;  // values per scale code; 0 for a type without panels
  int32_t bits;
  int32_t groups_per_unit;
  bool mins;
  int32_t lowest, highest;  // q in weight = d · c · q − m · z
};

constexpr PanelLayout panel_layout(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
      return {32, 8, 4, false, -127, 127};
    case DType::kInt4:
      return {32, 4, 2, true, 0, 15};
    case DType::kInt4G64:
      return {64, 4, 2, true, 0, 15};
    case DType::kInt4G128:
      return {128, 4, 2, true, 0, 15};
    case DType::kInt4Sym:
      return {32, 4, 4, false, -8, 7};
    default:
      return {};
  }
}

// Bytes of the codes of one group.
constexpr size_t group_bytes(const PanelLayout& layout) {
  return static_cast<size_t>(kPanelRows) * static_cast<size_t>(layout.group_size * layout.bits / 8);
}

// Scratch of Kernels::quantize_panel: the rows, transposed, and a scale and a shift per row and group.
constexpr size_t quantize_scratch_floats(int32_t columns) {
  const auto groups = static_cast<size_t>((columns + kCodeBlock - 1) / kCodeBlock);
  return static_cast<size_t>(kPanelRows) * (static_cast<size_t>(columns) + 2 * groups);
}

}  // namespace
}  // namespace engine::kernels
