// Weight matrices as the GPU reads them: tiles of 16 rows, one behind the other along a row of tiles, in the order in
// which the lanes of a warp feed them to the matrix unit. One list of formats covers all storage types:
//
//   half     weight = code · scale of the row, a power of two: F16 exactly, BF16 up to 2^−25 of the row's largest
//            weight, F32 so as the sum of two planes
//   coded    weight = scale · (code − bias) − min, both factors shared by a group of values of a row
//
// Codes lie first. With step = k / 16, lane = 4 · (row % 8) + k % 8 / 2 and
// value = 4 · (k % 16 / 8) + 2 · (row / 8) + k % 2:
//   16 bits  16 bytes per lane and step
//   8 bits   16 bytes per lane and 2 steps; bytes are codes plus 128
//   4 bits   16 bytes per lane and 4 steps, a word for each; value 2j + i in nibble j + 4i
// Factors follow, each [16 rows][groups of a tile]: scales, then mins; with a d per tile and row, then those f16 [16].
#pragma once

#include <cstddef>
#include <cstdint>

namespace engine::cuda {

enum class TileFormat : int32_t {
  kHalf,
  kInt8,  // our own types
  kInt4,
  kInt4G64,
  kInt4G128,
  kInt4Sym,
  kBlock4,        // Q4_0
  kBlock8,        // Q8_0, Q5_0, IQ4_NL
  kBlock8Min,     // Q4_1, Q5_1
  kSuper4Min,     // Q4_K
  kSuper8Min,     // Q5_K
  kSuper8,        // Q3_K, Q6_K, IQ3_S, IQ4_XS, TQ2_0
  kSuper8MinG16,  // Q2_K
};
inline constexpr int32_t kNumTileFormats = 13;

inline constexpr int32_t kTileRows = 16;
// Columns of a matrix and of prepared activations are padded with zeros to a multiple of this.
inline constexpr int32_t kColumnUnit = 256;
// Rows of activations that the matrix unit multiplies at once.
inline constexpr int32_t kTokenTile = 8;

enum class Factors : int32_t {
  kNone,
  kRow,    // u8 codes of scales and mins, times d and m of the row (RowFactors)
  kBlock,  // f16 scales and mins
  kSuper,  // s8 codes of scales, u8 codes of mins, times f16 d and dmin of the row of the tile
};

struct TileLayout {
  int32_t columns;  // values of k
  int32_t bits;
  int32_t bias;
  int32_t group;  // values that share a scale and a min
  Factors factors;
  bool has_mins;

  constexpr int32_t groups() const { return columns / group; }
  constexpr int32_t code_bytes() const { return kTileRows * columns * bits / 8; }
  constexpr int32_t factor_size() const { return factors == Factors::kBlock ? 2 : 1; }
  // Bytes of the scales, or of the mins, of a row.
  constexpr int32_t row_factor_bytes() const { return factors == Factors::kNone ? 0 : groups() * factor_size(); }
  constexpr int32_t mins_offset() const { return code_bytes() + kTileRows * row_factor_bytes(); }
  constexpr int32_t d_offset() const { return mins_offset() + (has_mins ? kTileRows * row_factor_bytes() : 0); }
  constexpr int32_t tile_bytes() const {
    return d_offset() + (factors == Factors::kSuper ? kTileRows * 2 * (has_mins ? 2 : 1) : 0);
  }
};

constexpr TileLayout TileLayoutOf(TileFormat format) {
  switch (format) {
    case TileFormat::kHalf:
      return {64, 16, 0, 64, Factors::kNone, false};
    case TileFormat::kInt8:
      return {256, 8, 0, 32, Factors::kRow, false};
    case TileFormat::kInt4:
      return {256, 4, 0, 32, Factors::kRow, true};
    case TileFormat::kInt4G64:
      return {256, 4, 0, 64, Factors::kRow, true};
    case TileFormat::kInt4G128:
      return {256, 4, 0, 128, Factors::kRow, true};
    case TileFormat::kInt4Sym:
      return {256, 4, 8, 32, Factors::kRow, false};
    case TileFormat::kBlock4:
      return {256, 4, 8, 32, Factors::kBlock, false};
    case TileFormat::kBlock8:
      return {256, 8, 0, 32, Factors::kBlock, false};
    case TileFormat::kBlock8Min:
      return {256, 8, 0, 32, Factors::kBlock, true};
    case TileFormat::kSuper4Min:
      return {256, 4, 0, 32, Factors::kSuper, true};
    case TileFormat::kSuper8Min:
      return {256, 8, 0, 32, Factors::kSuper, true};
    case TileFormat::kSuper8:
      return {256, 8, 0, 16, Factors::kSuper, false};
    case TileFormat::kSuper8MinG16:
      return {256, 8, 0, 16, Factors::kSuper, true};
  }
  return {};
}

constexpr int32_t RoundUp(int32_t value, int32_t unit) { return (value + unit - 1) / unit * unit; }
constexpr int32_t CeilDivide(int32_t value, int32_t unit) { return (value + unit - 1) / unit; }

// Where the code of row 0 … 15 and column k of a tile lies: the byte, and for 4 bits the shift in it.
struct CodePlace {
  int32_t byte;
  int32_t shift;
};
constexpr CodePlace CodePlaceOf(int32_t bits, int32_t row, int32_t k) {
  const int32_t step = k / 16;
  const int32_t lane = row % 8 * 4 + k % 8 / 2;
  const int32_t value = k % 16 / 8 * 4 + row / 8 * 2 + k % 2;
  const int32_t steps = 16 / bits;  // for which a lane has 16 bytes
  const int32_t base = (step / steps * 32 + lane) * 16 + step % steps * bits;
  if (bits == 4) {
    const int32_t nibble = value / 2 + value % 2 * 4;
    return {base + nibble / 2, nibble % 2 * 4};
  }
  return {base + value * bits / 8, 0};
}

// Where the value of row 0 … 7 and column k of a tile of prepared activations lies, in halves: 16 bytes per lane and 32
// columns.
constexpr int32_t ActivationPlaceOf(int32_t row, int32_t k) {
  const int32_t lane = row * 4 + k % 8 / 2;
  return (k / 32 * 32 + lane) * 8 + k % 32 / 16 * 4 + k % 16 / 8 * 2 + k % 2;
}

// The same for a warpgroup: matrices of 8 rows by 8 columns, one behind the other along k.
constexpr int32_t ActivationCoreOf(int32_t row, int32_t k) { return (k / 8 * kTokenTile + row) * 8 + k % 8; }

// Of each row of a matrix.
struct RowFactors {
  float d;  // Factors::kRow: what scale codes are multiplied with
  float m;  // and min codes
  // A power of two: half, what codes are multiplied with; coded, not below the row's largest magnitude.
  float scale;
};

struct TiledMatrix {
  const uint8_t* tiles;       // [row tiles][planes][column tiles][tile bytes], aligned to 16 bytes
  const RowFactors* factors;  // [row tiles · 16]
  TileFormat format;
  int32_t rows;
  int32_t columns;
  int32_t planes;  // the matrix is their sum

  constexpr int32_t row_tiles() const { return CeilDivide(rows, kTileRows); }
  // Of a plane.
  constexpr int32_t column_tiles() const { return RoundUp(columns, kColumnUnit) / TileLayoutOf(format).columns; }
  constexpr size_t row_tile_bytes() const {
    return static_cast<size_t>(planes) * static_cast<size_t>(column_tiles()) *
           static_cast<size_t>(TileLayoutOf(format).tile_bytes());
  }
  constexpr size_t tile_bytes() const { return static_cast<size_t>(row_tiles()) * row_tile_bytes(); }
  constexpr size_t factor_bytes() const { return static_cast<size_t>(row_tiles() * kTileRows) * sizeof(RowFactors); }
};

}  // namespace engine::cuda
