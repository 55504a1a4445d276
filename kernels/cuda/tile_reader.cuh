// A tile's codes as operands of the matrix unit, and its factors as floats.
#pragma once

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tiles.h"

namespace engine::cuda {
namespace {

// Byte i of a word as a float: 2^23 + byte has the byte in its last bits.
ENGINE_DEVICE float FloatOfByte(uint32_t word, int i) {
  return FloatOf(Permute(word, 0x4b000000, 0x7650u | static_cast<uint32_t>(i))) - 0x1p23f;
}
ENGINE_DEVICE float FloatOfSignedByte(uint32_t word, int i) {
  return FloatOf(Permute(word ^ 0x80808080u, 0x4b000000, 0x7650u | static_cast<uint32_t>(i))) - (0x1p23f + 128.0f);
}

// What follows makes halves of codes without a conversion: 0x6400 + n is 1024 + n in half precision for n < 1024.
inline constexpr uint32_t k1024 = 0x64006400;

// Four bytes, codes plus 128, in order.
ENGINE_DEVICE void HalvesOfBytes(uint32_t word, uint32_t& first, uint32_t& second) {
  constexpr uint32_t k1152 = 0x64806480;
  first = SubtractHalves(Permute(word, k1024, 0x5150), k1152);
  second = SubtractHalves(Permute(word, k1024, 0x5352), k1152);
}

// Eight nibbles: 0 and 4, 1 and 5, … of each, less the bias (0 or 8).
template <int kBias>
ENGINE_DEVICE void HalvesOfNibbles(uint32_t word, uint32_t (&a)[4]) {
  constexpr uint32_t kLow = 0x000f000f;
  constexpr uint32_t kHigh = 0x00f000f0;                                  // 16 · nibble
  constexpr uint32_t kSixteenth = 0x2c002c00;                             // 1/16
  constexpr uint32_t kLowBias = k1024 + kBias * 0x00010001u;              // 1024 + bias
  constexpr uint32_t kHighBias = kBias == 0 ? 0xd400d400u : 0xd480d480u;  // −(64 + bias)
  const uint32_t next = word >> 8;
  a[0] = SubtractHalves((word & kLow) | k1024, kLowBias);
  a[1] = FmaHalves((word & kHigh) | k1024, kSixteenth, kHighBias);
  a[2] = SubtractHalves((next & kLow) | k1024, kLowBias);
  a[3] = FmaHalves((next & kHigh) | k1024, kSixteenth, kHighBias);
}

// Codes of 64 columns of a tile, four steps of 16, as this lane's operands.
template <TileFormat kFormat>
ENGINE_DEVICE void ReadCodes(uint32_t (&a)[4][4], const uint8_t* tile, int quad, int lane) {
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  const uint8_t* codes = tile + (quad * 4 * kLayout.bits / 16 * 32 + lane) * 16;
  if constexpr (kLayout.bits == 16) {
    ENGINE_UNROLL
    for (int s = 0; s < 4; s++) {
      const Words4 words = Load16(codes + 512 * s);
      a[s][0] = words.x;
      a[s][1] = words.y;
      a[s][2] = words.z;
      a[s][3] = words.w;
    }
  } else if constexpr (kLayout.bits == 8) {
    ENGINE_UNROLL
    for (int s = 0; s < 4; s += 2) {
      const Words4 words = Load16(codes + 256 * s);
      HalvesOfBytes(words.x, a[s][0], a[s][1]);
      HalvesOfBytes(words.y, a[s][2], a[s][3]);
      HalvesOfBytes(words.z, a[s + 1][0], a[s + 1][1]);
      HalvesOfBytes(words.w, a[s + 1][2], a[s + 1][3]);
    }
  } else {
    const Words4 words = Load16(codes);
    HalvesOfNibbles<kLayout.bias>(words.x, a[0]);
    HalvesOfNibbles<kLayout.bias>(words.y, a[1]);
    HalvesOfNibbles<kLayout.bias>(words.z, a[2]);
    HalvesOfNibbles<kLayout.bias>(words.w, a[3]);
  }
}

// The scales and mins of one row of a tile.
template <TileFormat kFormat>
class TileRowFactors {
 public:
  static constexpr TileLayout kLayout = TileLayoutOf(kFormat);

  // `row` is one of the tile's 16.
  ENGINE_DEVICE void Load(const uint8_t* tile, int row, const RowFactors& factors) {
    LoadBehindCodes(tile + kLayout.code_bytes(), row, factors);
  }
  // From what follows the codes of a tile.
  ENGINE_DEVICE void LoadBehindCodes(const uint8_t* behind, int row, const RowFactors& factors) {
    if constexpr (kLayout.factors != Factors::kNone) LoadBytes(scales_, behind, row);
    if constexpr (kLayout.has_mins) LoadBytes(mins_, behind + kLayout.mins_offset() - kLayout.code_bytes(), row);
    if constexpr (kLayout.factors == Factors::kRow) {
      d_ = factors.d;
      m_ = factors.m;
    } else if constexpr (kLayout.factors == Factors::kSuper) {
      const auto* d = reinterpret_cast<const uint16_t*>(behind + kLayout.d_offset() - kLayout.code_bytes());
      d_ = FloatOfHalf(d[row]);
      if constexpr (kLayout.has_mins) m_ = FloatOfHalf(d[kTileRows + row]);
    }
  }

  // Of the group that column k of the tile is in.
  ENGINE_DEVICE float scale(int k) const {
    const int g = k / kLayout.group;
    if constexpr (kLayout.factors == Factors::kNone) return 1.0f;
    if constexpr (kLayout.factors == Factors::kBlock) return Half(scales_[g / 2], g);
    if constexpr (kLayout.factors == Factors::kSuper) return d_ * FloatOfSignedByte(scales_[g / 4], g % 4);
    return d_ * FloatOfByte(scales_[g / 4], g % 4);
  }
  ENGINE_DEVICE float min(int k) const {
    const int g = k / kLayout.group;
    if constexpr (!kLayout.has_mins) return 0.0f;
    if constexpr (kLayout.factors == Factors::kBlock) return Half(mins_[g / 2], g);
    return m_ * FloatOfByte(mins_[g / 4], g % 4);
  }

 private:
  static constexpr int kBytes = kLayout.row_factor_bytes();
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;

  ENGINE_DEVICE static float Half(uint32_t word, int g) {
    return FloatOfHalf(static_cast<uint16_t>(g % 2 == 0 ? word : word >> 16));
  }
  ENGINE_DEVICE static void LoadBytes(uint32_t (&words)[kWords], const uint8_t* rows, int row) {
    const uint8_t* bytes = rows + row * kBytes;
    if constexpr (kBytes == 2) {
      words[0] = *reinterpret_cast<const uint16_t*>(bytes);
    } else {
      ENGINE_UNROLL
      for (int i = 0; i < kWords; i++) words[i] = reinterpret_cast<const uint32_t*>(bytes)[i];
    }
  }

  uint32_t scales_[kWords];
  uint32_t mins_[kWords];
  float d_;
  float m_;
};

// Codes of columns k … k + 15 of a tile, as ReadCodes gives them, become weights divided by the scales of their rows,
// in half precision. `rows` and `inverse` are of rows lane / 4 and lane / 4 + 8.
template <TileFormat kFormat>
ENGINE_DEVICE void HalveCodes(uint32_t (&a)[4], const TileRowFactors<kFormat> (&rows)[2], const float (&inverse)[2],
                              int k) {
  if constexpr (TileLayoutOf(kFormat).factors != Factors::kNone) {
    ENGINE_UNROLL
    for (int i = 0; i < 4; i++) {
      const float scale = Multiply(rows[i % 2].scale(k), inverse[i % 2]);
      const float min = Multiply(rows[i % 2].min(k), inverse[i % 2]);
      a[i] = HalvesOf(Fma(scale, FloatOfHalf(static_cast<uint16_t>(a[i])), -min),
                      Fma(scale, FloatOfHalf(static_cast<uint16_t>(a[i] >> 16)), -min));
    }
  }
}

// One weight of a tile; the tile lies in global memory.
template <TileFormat kFormat>
ENGINE_DEVICE float ReadWeight(const uint8_t* tile, int row, int k, const RowFactors& factors) {
  constexpr TileLayout kLayout = TileLayoutOf(kFormat);
  const CodePlace place = CodePlaceOf(kLayout.bits, row, k);
  if constexpr (kLayout.bits == 16) {
    return FloatOfHalf(*reinterpret_cast<const uint16_t*>(tile + place.byte)) * factors.scale;
  } else {
    TileRowFactors<kFormat> row_factors;
    row_factors.Load(tile, row, factors);
    const int stored =
        kLayout.bits == 8 ? tile[place.byte] - 128 : (tile[place.byte] >> place.shift & 15) - kLayout.bias;
    const float product = Multiply(row_factors.scale(k), static_cast<float>(stored));
    return kLayout.has_mins ? Add(product, -row_factors.min(k)) : product;
  }
}

// Calls visit.operator()<format>().
template <class Visit>
auto WithTileFormat(TileFormat format, Visit visit) {
  switch (format) {
    case TileFormat::kHalf:
      return visit.template operator()<TileFormat::kHalf>();
    case TileFormat::kInt8:
      return visit.template operator()<TileFormat::kInt8>();
    case TileFormat::kInt4:
      return visit.template operator()<TileFormat::kInt4>();
    case TileFormat::kInt4G64:
      return visit.template operator()<TileFormat::kInt4G64>();
    case TileFormat::kInt4G128:
      return visit.template operator()<TileFormat::kInt4G128>();
    case TileFormat::kInt4Sym:
      return visit.template operator()<TileFormat::kInt4Sym>();
    case TileFormat::kBlock4:
      return visit.template operator()<TileFormat::kBlock4>();
    case TileFormat::kBlock8:
      return visit.template operator()<TileFormat::kBlock8>();
    case TileFormat::kBlock8Min:
      return visit.template operator()<TileFormat::kBlock8Min>();
    case TileFormat::kSuper4Min:
      return visit.template operator()<TileFormat::kSuper4Min>();
    case TileFormat::kSuper8Min:
      return visit.template operator()<TileFormat::kSuper8Min>();
    case TileFormat::kSuper8:
      return visit.template operator()<TileFormat::kSuper8>();
    case TileFormat::kSuper8MinG16:
      break;
  }
  return visit.template operator()<TileFormat::kSuper8MinG16>();
}

}  // namespace
}  // namespace engine::cuda
