#include "native/cuda/synthetic_tiles.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace engine::cuda {
namespace {

constexpr uint16_t kSmallHalf = 0x1400;  // 2^−10 as f16

void FillHalves(uint8_t* to, int32_t bytes, uint16_t half) {
  for (int32_t i = 0; i < bytes; i += 2) std::memcpy(to + i, &half, sizeof half);
}

}  // namespace

void DrawTiles(const TiledMatrix& matrix, uint64_t seed, std::vector<uint8_t>* tiles,
               std::vector<RowFactors>* factors) {
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < tiles->size(); i += sizeof(uint64_t)) {
    const uint64_t bits = random();
    std::memcpy(tiles->data() + i, &bits, std::min(sizeof bits, tiles->size() - i));
  }
  for (RowFactors& row : *factors) row = {0x1p-12f, 0x1p-12f, 0x1p-4f};
  const TileLayout layout = TileLayoutOf(matrix.format);
  const int32_t num_factors = layout.d_offset() - layout.code_bytes();  // bytes of scales and mins
  for (size_t at = 0; at < tiles->size(); at += static_cast<size_t>(layout.tile_bytes())) {
    uint8_t* tile = tiles->data() + at;
    if (layout.bits == 16) {
      // Of any sign, magnitudes from 2^−3 to 2^−2.
      for (int32_t i = 1; i < layout.code_bytes(); i += 2) tile[i] = (tile[i] & 0x83) | 0x30;
    }
    if (layout.factors == Factors::kBlock) FillHalves(tile + layout.code_bytes(), num_factors, kSmallHalf);
    FillHalves(tile + layout.d_offset(), layout.tile_bytes() - layout.d_offset(), kSmallHalf);
  }
}

}  // namespace engine::cuda
