// Makes tiles (tiles.h) of matrices as files hold them: by rows, or in the panels of our own types. On the host.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cuda/tiles.h"

namespace engine::cuda {

// The form that a matrix gets; tiles and factors are null.
TiledMatrix TiledFormOf(const kernels::Matrix& source);

// Rows of tiles first … first + count − 1: tiles[count · row_tile_bytes()], factors[count · 16].
void PackTiles(uint8_t* tiles, RowFactors* factors, const kernels::Matrix& source, int32_t first, int32_t count);

}  // namespace engine::cuda
