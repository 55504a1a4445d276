#include "kernels/cuda/pack.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "kernels/cpu/dtype.inc"
#include "kernels/cpu/packed.h"

namespace engine::cuda {
namespace {

using kernels::DType;

TileFormat FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return TileFormat::kHalf;
    case DType::kInt8:
      return TileFormat::kInt8;
    case DType::kInt4:
      return TileFormat::kInt4;
    case DType::kInt4G64:
      return TileFormat::kInt4G64;
    case DType::kInt4G128:
      return TileFormat::kInt4G128;
    case DType::kInt4Sym:
      return TileFormat::kInt4Sym;
    case DType::kQ4_0:
      return TileFormat::kBlock4;
    case DType::kQ8_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
      return TileFormat::kBlock8;
    case DType::kQ4_1:
    case DType::kQ5_1:
      return TileFormat::kBlock8Min;
    case DType::kQ4_K:
      return TileFormat::kSuper4Min;
    case DType::kQ5_K:
      return TileFormat::kSuper8Min;
    case DType::kQ2_K:
      return TileFormat::kSuper8MinG16;
    case DType::kQ3_K:
    case DType::kQ6_K:
    case DType::kIQ3_S:
    case DType::kIQ4_XS:
    case DType::kTQ2_0:
      break;
  }
  return TileFormat::kSuper8;
}

// One row of tiles, all of its bytes zero at first; a row's groups without values keep the scale 0.
class TileRow {
 public:
  TileRow(uint8_t* tiles, const TiledMatrix& matrix)
      : tiles_(tiles), layout_(TileLayoutOf(matrix.format)), plane_tiles_(matrix.column_tiles()) {
    memset(tiles, 0, matrix.row_tile_bytes());
  }

  // `code` is without its bias.
  void SetCode(int32_t row, int32_t k, int32_t code) const {
    const CodePlace place = CodePlaceOf(layout_.bits, row, k % layout_.columns);
    const int32_t stored = layout_.bits == 8 ? code + 128 : (code + layout_.bias) << place.shift;
    uint8_t& byte = Tile(k)[place.byte];
    byte = static_cast<uint8_t>(byte | stored);
  }
  void SetHalf(int32_t plane, int32_t row, int32_t k, uint16_t half) const {
    const CodePlace place = CodePlaceOf(layout_.bits, row, k % layout_.columns);
    memcpy(Tile(k + plane * plane_tiles_ * layout_.columns) + place.byte, &half, sizeof half);
  }
  // A u8 or s8 code, or the bits of a half, of the group that k is in.
  void SetScale(int32_t row, int32_t k, int32_t value) const { SetFactor(layout_.code_bytes(), row, k, value); }
  void SetMin(int32_t row, int32_t k, int32_t value) const { SetFactor(layout_.mins_offset(), row, k, value); }
  void SetD(int32_t row, int32_t k, uint16_t d) const { memcpy(Tile(k) + layout_.d_offset() + 2 * row, &d, sizeof d); }
  void SetDMin(int32_t row, int32_t k, uint16_t dmin) const { SetD(kTileRows + row, k, dmin); }

 private:
  uint8_t* Tile(int32_t k) const { return tiles_ + static_cast<ptrdiff_t>(k / layout_.columns) * layout_.tile_bytes(); }
  void SetFactor(int32_t offset, int32_t row, int32_t k, int32_t value) const {
    const int32_t place = row * layout_.groups() + k % layout_.columns / layout_.group;
    memcpy(Tile(k) + offset + place * layout_.factor_size(), &value, static_cast<size_t>(layout_.factor_size()));
  }

  uint8_t* const tiles_;
  const TileLayout layout_;
  const int32_t plane_tiles_;
};

// The least power of two not below a magnitude, or 1 for what has none; its inverse is a normal number too.
float PowerOfTwoAbove(float magnitude) {
  if (!(magnitude > 0.0f) || !isfinite(magnitude)) return 1.0f;
  int exponent;
  const float fraction = frexpf(magnitude, &exponent);
  return ldexpf(1.0f, std::clamp(fraction == 0.5f ? exponent - 1 : exponent, -120, 120));
}

float LargestOf(const float* values, int32_t count) {
  float largest = 0.0f;
  for (int32_t i = 0; i < count; i++) largest = std::max(largest, fabsf(values[i]));
  return largest;
}

// Calls visit(k, value) for all values of a row.
template <class Visit>
void ForEachFloat(DType dtype, const uint8_t* row, int32_t columns, Visit visit) {
  constexpr int32_t kPiece = 256;
  const int32_t bytes = dtype == DType::kF32 ? 4 : 2;
  for (int32_t first = 0; first < columns; first += kPiece) {
    float values[kPiece];
    const int32_t count = std::min(kPiece, columns - first);
    kernels::dequantize(values, dtype, row + static_cast<ptrdiff_t>(first) * bytes, count);
    for (int32_t i = 0; i < count; i++) visit(first + i, values[i]);
  }
}

void PackFloatRow(const TileRow& out, RowFactors* factors, DType dtype, int32_t row, const uint8_t* data,
                  int32_t columns) {
  factors->scale = 1.0f;
  if (dtype == DType::kF16) {
    for (int32_t k = 0; k < columns; k++)
      out.SetHalf(0, row, k, kernels::read_u16(data + 2 * static_cast<ptrdiff_t>(k)));
    return;
  }
  float largest = 0.0f;
  ForEachFloat(dtype, data, columns, [&](int32_t, float value) { largest = std::max(largest, fabsf(value)); });
  const float scale = PowerOfTwoAbove(largest);
  factors->scale = scale;
  ForEachFloat(dtype, data, columns, [&](int32_t k, float value) {
    const uint16_t half = kernels::f16_from_float(value / scale);
    out.SetHalf(0, row, k, half);
    if (dtype == DType::kF32) {
      out.SetHalf(1, row, k, kernels::f16_from_float(value / scale - kernels::float_from_f16(half)));
    }
  });
}

template <class T>
void PackBlockRow(const TileRow& out, RowFactors* factors, int32_t row, const uint8_t* data, int32_t columns) {
  constexpr int32_t kGroup = T::kScaleGroup < 16 ? 16 : T::kScaleGroup;
  constexpr uint16_t kSign = 0x8000;
  float largest = 0.0f;
  for (int32_t first = 0; first < columns; first += T::kBlockSize, data += T::kBlockBytes) {
    float values[T::kBlockSize];
    kernels::dequantize_block<T>(values, data);
    largest = std::max(largest, LargestOf(values, T::kBlockSize));

    uint8_t codes[T::kBlockSize];
    for (int32_t j = 0; j < T::kBlockSize / 32; j++) kernels::store_bytes(codes + 32 * j, T::codes(data, j));
    for (int32_t i = 0; i < T::kBlockSize; i++) {
      out.SetCode(row, first + i, T::kCodeBits == 8 ? static_cast<int8_t>(codes[i]) : codes[i] - T::kBias);
    }
    if constexpr (T::kBlockSize == 32) {
      out.SetScale(row, first, T::d(data));
      if constexpr (T::kHasMins) out.SetMin(row, first, T::minus_dmin(data) ^ kSign);
    } else {
      int8_t scales[16] = {1};
      int8_t mins[16] = {};
      if constexpr (T::kBlockSize > kGroup) kernels::unpack_scales<T>(data, scales, mins);
      for (int32_t k = 0; k < T::kBlockSize; k += 16) {
        out.SetScale(row, first + k, scales[k / kGroup]);
        if constexpr (T::kHasMins) out.SetMin(row, first + k, mins[k / kGroup]);
      }
      out.SetD(row, first, T::d(data));
      if constexpr (T::kHasMins) out.SetDMin(row, first, T::minus_dmin(data) ^ kSign);
    }
  }
  factors->scale = PowerOfTwoAbove(largest);
}

// A panel of one of our own types is a row of tiles (kernels/cpu/packed.h).
void PackPanel(const TileRow& out, RowFactors* factors, DType dtype, const uint8_t* panel, int32_t columns) {
  const kernels::PackedLayout packed = kernels::packed_layout(dtype);
  const TileLayout layout = TileLayoutOf(FormatOf(dtype));
  const int32_t groups_per_unit = packed.unit_values / layout.group;
  const ptrdiff_t unit_bytes = packed.factor_bytes + packed.unit_values / 32 * packed.code_bytes;
  for (int32_t row = 0; row < kTileRows; row++) {
    factors[row].d = kernels::float_from_bf16(kernels::read_u16(panel + 2 * row));
    factors[row].m =
        layout.has_mins ? kernels::float_from_bf16(kernels::read_u16(panel + 2 * (kTileRows + row))) : 0.0f;
    float largest = 0.0f;
    for (int32_t k = 0; k < columns; k++) {
      const uint8_t* unit = panel + packed.header_bytes + k / packed.unit_values * unit_bytes;
      const int32_t in_unit = k % packed.unit_values;
      const uint8_t* scale = unit + in_unit / layout.group * kTileRows + row;
      const int32_t min = layout.has_mins ? scale[groups_per_unit * kTileRows] : 0;
      if (k % layout.group == 0) {
        out.SetScale(row, k, *scale);
        if (layout.has_mins) out.SetMin(row, k, min);
      }
      const uint8_t* lines = unit + packed.factor_bytes + in_unit / 32 * packed.code_bytes;
      const int32_t position = layout.bits == 8 ? k % 32 : k % 16;
      const uint8_t byte = lines[position / 4 * 64 + 4 * row + position % 4];
      const int32_t code = layout.bits == 8 ? static_cast<int8_t>(byte) : (byte >> k % 32 / 16 * 4 & 15) - layout.bias;
      out.SetCode(row, k, code);
      largest = std::max(largest, fabsf(factors[row].d * static_cast<float>(*scale * code) -
                                        factors[row].m * static_cast<float>(min)));
    }
    factors[row].scale = PowerOfTwoAbove(largest);
  }
}

}  // namespace

TiledMatrix TiledFormOf(const kernels::Matrix& source) {
  return {nullptr, nullptr, FormatOf(source.dtype), source.rows, source.columns, source.dtype == DType::kF32 ? 2 : 1};
}

void PackTiles(uint8_t* tiles, RowFactors* factors, const kernels::Matrix& source, int32_t first, int32_t count) {
  const TiledMatrix matrix = TiledFormOf(source);
  for (int32_t tile = first; tile < first + count; tile++) {
    const TileRow out(tiles, matrix);
    std::fill_n(factors, kTileRows, RowFactors{0.0f, 0.0f, 1.0f});
    if (source.packed) {
      PackPanel(out, factors, source.dtype, source.data + static_cast<size_t>(tile) * source.stride, source.columns);
    } else {
      for (int32_t row = 0; row < std::min(kTileRows, source.rows - tile * kTileRows); row++) {
        const uint8_t* data = source.data + static_cast<size_t>(tile * kTileRows + row) * source.stride;
        const bool quantized = kernels::with_quantized(
            source.dtype, [&]<class T>() { PackBlockRow<T>(out, factors + row, row, data, source.columns); });
        if (!quantized) PackFloatRow(out, factors + row, source.dtype, row, data, source.columns);
      }
    }
    tiles += matrix.row_tile_bytes();
    factors += kTileRows;
  }
}

}  // namespace engine::cuda
