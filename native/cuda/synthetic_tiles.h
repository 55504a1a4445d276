// Random tiles for measuring: any codes, and factors that keep products in range.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/tiles.h"

namespace engine::cuda {

// Whole rows of tiles of such a matrix, and 16 factors for each.
void DrawTiles(const TiledMatrix& matrix, uint64_t seed, std::vector<uint8_t>* tiles, std::vector<RowFactors>* factors);

}  // namespace engine::cuda
