// The few rows of activations that a block multiplies with its weights: in global memory, as LaunchPrepare left them,
// or in the block's shared memory, where it has prepared them for itself. Nothing is read for rows that do not exist:
// a single row costs an eighth of a tile of rows.
#pragma once

#include "kernels/cuda/row_source.cuh"

namespace engine::cuda {
namespace {

// Value k of a row lies where ActivationPlaceOf says within 32 columns.
inline constexpr int32_t kChunkColumns = 32;
constexpr int32_t ChunkPlaceOf(int32_t k) { return ActivationPlaceOf(0, k % kChunkColumns); }
inline constexpr int32_t kRowChunk = 32;  // halves of a row, those of four lanes

struct ActivationRows {
  const uint16_t* halves;
  const float* sums;
  const float* scales;  // [num_rows]
  int num_rows;
  int parts;
  // In halves: between parts, tiles of rows, chunks of columns.
  int part_stride, tile_stride, chunk_stride;
  // In floats: between tiles of rows, groups of 16 columns.
  int sum_tile_stride, sum_stride;

  // What the lane multiplies of a chunk of columns and the rows of a tile: two operands.
  ENGINE_DEVICE Words4 Operands(int part, int tile, int chunk, int lane) const {
    if (tile * kTokenTile + lane / 4 >= num_rows) return {};
    return Load16(halves + part * part_stride + tile * tile_stride + chunk * chunk_stride + lane * 8);
  }
  // The sum of a group of 16 columns of a row of a tile.
  ENGINE_DEVICE float Sum(int tile, int group, int row) const {
    if (tile * kTokenTile + row >= num_rows) return 0.0f;
    return sums[tile * sum_tile_stride + group * sum_stride + row];
  }
};

ENGINE_DEVICE ActivationRows RowsOf(const PreparedRows& x) {
  const int tile = x.columns * kTokenTile;
  return {x.halves,  x.sums,    x.scales, x.num_rows, x.parts, x.row_tiles() * tile, tile, kTokenTile * kRowChunk,
          tile / 16, kTokenTile};
}

// In shared memory: [parts][columns / 32][num_rows][32], [columns / 16][num_rows], [num_rows].
constexpr int32_t RowHalvesBytes(const PreparedRows& x) {
  return x.parts * x.num_rows * x.columns * static_cast<int32_t>(sizeof(uint16_t));
}
constexpr int32_t RowSumsBytes(const PreparedRows& x) {
  return x.num_rows * (x.columns / 16) * static_cast<int32_t>(sizeof(float));
}

// All threads of the block prepare rows of the sizes of `x`; sums if there is a place for them.
ENGINE_DEVICE ActivationRows PrepareRows(const RowSource& source, const PreparedRows& x, uint16_t* halves, float* sums,
                                         float* scales) {
  const int part_stride = x.num_rows * x.columns;
  const int chunk_stride = x.num_rows * kRowChunk;
  for (int r = 0; r < x.num_rows; r++) {
    const SourceRow row(source, r);
    const auto place = [=](int part, int k) {
      return halves + part * part_stride + k / kChunkColumns * chunk_stride + r * kRowChunk + ChunkPlaceOf(k);
    };
    const auto sum_place = [=](int group) { return sums + group * x.num_rows + r; };
    const float scale = PrepareRow(row, source.columns, x.columns, x.parts, place, sums != nullptr, sum_place);
    if (ThreadIndex() == 0) scales[r] = scale;
  }
  SyncThreads();
  return {halves,       sums,       scales,    x.num_rows, x.parts, part_stride, kTokenTile * kRowChunk,
          chunk_stride, kTokenTile, x.num_rows};
}

}  // namespace
}  // namespace engine::cuda
