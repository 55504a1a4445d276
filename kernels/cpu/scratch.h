// Sizes of per-thread scratch, shared by the kernels that carve it up and by scratch.cc, which tells the session.
#pragma once

#include <cstddef>
#include <cstdint>

namespace engine::kernels {
namespace {

// Float weights of one panel of rows, converted for a tile of the f32 product.
constexpr int32_t kFloatPanelRows = 8;

constexpr size_t linear_scratch_bytes(int32_t max_columns) {
  return static_cast<size_t>(kFloatPanelRows) * static_cast<size_t>((max_columns + 15) / 16 * 16) * sizeof(float);
}

}  // namespace
}  // namespace engine::kernels
