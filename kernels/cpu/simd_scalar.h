// Plain C++: the definition of every vector operation, and the level that runs anywhere.
#pragma once

#include "half.h"

namespace engine::kernels {
namespace {

struct F32x16 {
  float lane[16];
};
struct I32x16 {
  int32_t lane[16];
};
struct Mask16 {
  bool lane[16];
};
// Vectors that fit in the processor's registers, for choosing tile sizes.
constexpr int kVectorRegisters = 4;

// Applies an expression in `i` to all lanes.
#define ENGINE_LANES(Type, expression)                        \
  Type result;                                                \
  for (int i = 0; i < 16; i++) result.lane[i] = (expression); \
  return result

ENGINE_INLINE F32x16 splat(float a) { ENGINE_LANES(F32x16, a); }
ENGINE_INLINE F32x16 zero() { return splat(0.0f); }
ENGINE_INLINE F32x16 load(const float* p) { ENGINE_LANES(F32x16, p[i]); }
ENGINE_INLINE F32x16 load_partial(const float* p, int n) { ENGINE_LANES(F32x16, i < n ? p[i] : 0.0f); }
ENGINE_INLINE F32x16 load_f16(const uint16_t* p) { ENGINE_LANES(F32x16, float_from_f16(p[i])); }
ENGINE_INLINE F32x16 load_f16_partial(const uint16_t* p, int n) {
  ENGINE_LANES(F32x16, i < n ? float_from_f16(p[i]) : 0.0f);
}
ENGINE_INLINE F32x16 load_bf16(const uint16_t* p) { ENGINE_LANES(F32x16, float_from_bf16(p[i])); }
ENGINE_INLINE F32x16 load_bf16_partial(const uint16_t* p, int n) {
  ENGINE_LANES(F32x16, i < n ? float_from_bf16(p[i]) : 0.0f);
}
ENGINE_INLINE F32x16 load_i8(const int8_t* p) { ENGINE_LANES(F32x16, static_cast<float>(p[i])); }
ENGINE_INLINE void store(float* p, F32x16 a) { memcpy(p, a.lane, sizeof a.lane); }
ENGINE_INLINE void store_partial(float* p, F32x16 a, int n) {
  for (int i = 0; i < n; i++) p[i] = a.lane[i];
}
ENGINE_INLINE void store_f16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = f16_from_float(a.lane[i]);
}
ENGINE_INLINE void store_f16_partial(uint16_t* p, F32x16 a, int n) {
  for (int i = 0; i < n; i++) p[i] = f16_from_float(a.lane[i]);
}

ENGINE_INLINE F32x16 operator+(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] + b.lane[i]); }
ENGINE_INLINE F32x16 operator-(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] - b.lane[i]); }
ENGINE_INLINE F32x16 operator*(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] * b.lane[i]); }
ENGINE_INLINE F32x16 operator/(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] / b.lane[i]); }
// a · b + c, rounded once
ENGINE_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  ENGINE_LANES(F32x16, ::fmaf(a.lane[i], b.lane[i], c.lane[i]));
}
ENGINE_INLINE F32x16 min(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
ENGINE_INLINE F32x16 max(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
ENGINE_INLINE F32x16 abs(F32x16 a) { ENGINE_LANES(F32x16, ::fabsf(a.lane[i])); }
ENGINE_INLINE F32x16 round_even(F32x16 a) { ENGINE_LANES(F32x16, ::nearbyintf(a.lane[i])); }

ENGINE_INLINE float sum(F32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) a.lane[i] = a.lane[i] + a.lane[i + half];
  }
  return a.lane[0];
}
// out[0 … 3] = sum(a), sum(b), sum(c), sum(d)
ENGINE_INLINE void store_sums(float* out, F32x16 a, F32x16 b, F32x16 c, F32x16 d) {
  out[0] = sum(a);
  out[1] = sum(b);
  out[2] = sum(c);
  out[3] = sum(d);
}
ENGINE_INLINE float max_lane(F32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) a.lane[i] = a.lane[i] > a.lane[i + half] ? a.lane[i] : a.lane[i + half];
  }
  return a.lane[0];
}

ENGINE_INLINE I32x16 splat_i32(int32_t a) { ENGINE_LANES(I32x16, a); }
ENGINE_INLINE I32x16 zero_i32() { return splat_i32(0); }
ENGINE_INLINE I32x16 load_i32(const int32_t* p) { ENGINE_LANES(I32x16, p[i]); }
// 16 bytes; 32 bytes as pairs of int16.
ENGINE_INLINE I32x16 load_u8(const uint8_t* p) { ENGINE_LANES(I32x16, p[i]); }
ENGINE_INLINE I32x16 load_u8_pairs(const uint8_t* p) { ENGINE_LANES(I32x16, p[2 * i] | p[2 * i + 1] << 16); }
ENGINE_INLINE I32x16 load_i8_pairs(const uint8_t* p) {
  ENGINE_LANES(I32x16, (static_cast<int8_t>(p[2 * i]) & 0xffff) |
                           static_cast<int32_t>(static_cast<uint32_t>(static_cast<int8_t>(p[2 * i + 1])) << 16));
}
ENGINE_INLINE void store_i32(int32_t* p, I32x16 a) { memcpy(p, a.lane, sizeof a.lane); }
// Values must lie in −128 … 127.
ENGINE_INLINE void store_i8(int8_t* p, I32x16 a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.lane[i]);
}

// Integer arithmetic wraps.
#define ENGINE_U32(x) static_cast<uint32_t>(x)
#define ENGINE_I32(x) static_cast<int32_t>(x)
ENGINE_INLINE I32x16 operator+(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, ENGINE_I32(ENGINE_U32(a.lane[i]) + ENGINE_U32(b.lane[i])));
}
ENGINE_INLINE I32x16 operator-(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, ENGINE_I32(ENGINE_U32(a.lane[i]) - ENGINE_U32(b.lane[i])));
}
ENGINE_INLINE I32x16 operator*(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, ENGINE_I32(ENGINE_U32(a.lane[i]) * ENGINE_U32(b.lane[i])));
}
ENGINE_INLINE I32x16 operator&(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, a.lane[i] & b.lane[i]); }
ENGINE_INLINE I32x16 operator|(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, a.lane[i] | b.lane[i]); }
ENGINE_INLINE I32x16 operator^(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, a.lane[i] ^ b.lane[i]); }
ENGINE_INLINE I32x16 max_i32(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}
// Upper 32 bits of the unsigned 64-bit product.
ENGINE_INLINE I32x16 mul_high_u32(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, ENGINE_I32(static_cast<uint64_t>(ENGINE_U32(a.lane[i])) * ENGINE_U32(b.lane[i]) >> 32));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_left(I32x16 a) {
  ENGINE_LANES(I32x16, ENGINE_I32(ENGINE_U32(a.lane[i]) << kBits));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right(I32x16 a) {
  ENGINE_LANES(I32x16, ENGINE_I32(ENGINE_U32(a.lane[i]) >> kBits));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right_signed(I32x16 a) {
  ENGINE_LANES(I32x16, a.lane[i] >> kBits);
}
#undef ENGINE_U32
#undef ENGINE_I32
ENGINE_INLINE int32_t sum_i32(I32x16 a) {
  uint32_t total = 0;
  for (int i = 0; i < 16; i++) total += static_cast<uint32_t>(a.lane[i]);
  return static_cast<int32_t>(total);
}
ENGINE_INLINE int32_t max_lane_i32(I32x16 a) {
  int32_t result = a.lane[0];
  for (int i = 1; i < 16; i++) result = a.lane[i] > result ? a.lane[i] : result;
  return result;
}

ENGINE_INLINE F32x16 to_float(I32x16 a) { ENGINE_LANES(F32x16, static_cast<float>(a.lane[i])); }
// Nearest integer, ties to even; the value must fit in int32.
ENGINE_INLINE I32x16 to_int(F32x16 a) { ENGINE_LANES(I32x16, static_cast<int32_t>(::nearbyintf(a.lane[i]))); }
ENGINE_INLINE F32x16 as_float(I32x16 a) {
  F32x16 result;
  memcpy(&result, &a, sizeof result);
  return result;
}
ENGINE_INLINE I32x16 as_int(F32x16 a) {
  I32x16 result;
  memcpy(&result, &a, sizeof result);
  return result;
}

// Comparisons with NaN are false.
ENGINE_INLINE Mask16 less(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, a.lane[i] < b.lane[i]); }
ENGINE_INLINE Mask16 less_equal(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, a.lane[i] <= b.lane[i]); }
ENGINE_INLINE Mask16 equal(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, a.lane[i] == b.lane[i]); }
ENGINE_INLINE Mask16 less_i32(I32x16 a, I32x16 b) { ENGINE_LANES(Mask16, a.lane[i] < b.lane[i]); }
ENGINE_INLINE Mask16 equal_i32(I32x16 a, I32x16 b) { ENGINE_LANES(Mask16, a.lane[i] == b.lane[i]); }
ENGINE_INLINE Mask16 operator&(Mask16 a, Mask16 b) { ENGINE_LANES(Mask16, a.lane[i] && b.lane[i]); }
// mask ? a : b
ENGINE_INLINE F32x16 select(Mask16 mask, F32x16 a, F32x16 b) {
  ENGINE_LANES(F32x16, mask.lane[i] ? a.lane[i] : b.lane[i]);
}
ENGINE_INLINE I32x16 select(Mask16 mask, I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, mask.lane[i] ? a.lane[i] : b.lane[i]);
}
// Bit i is lane i.
ENGINE_INLINE uint32_t bits(Mask16 a) {
  uint32_t result = 0;
  for (int i = 0; i < 16; i++) result |= static_cast<uint32_t>(a.lane[i]) << i;
  return result;
}
ENGINE_INLINE bool any(Mask16 a) { return bits(a) != 0; }

// 32 bytes.
struct U8x32 {
  uint8_t lane[32];
};
#define ENGINE_BYTES(expression)                                                  \
  U8x32 result;                                                                   \
  for (int i = 0; i < 32; i++) result.lane[i] = static_cast<uint8_t>(expression); \
  return result
ENGINE_INLINE U8x32 load_bytes(const uint8_t* p) { ENGINE_BYTES(p[i]); }
// 16 bytes, then zeros.
ENGINE_INLINE U8x32 load_half(const uint8_t* p) { ENGINE_BYTES(i < 16 ? p[i] : 0); }
// 16 bytes from each of two places.
ENGINE_INLINE U8x32 load_halves(const uint8_t* p, const uint8_t* q) { ENGINE_BYTES(i < 16 ? p[i] : q[i - 16]); }
ENGINE_INLINE void store_bytes(uint8_t* p, U8x32 a) { memcpy(p, a.lane, sizeof a.lane); }
// The low nibbles of 16 bytes, then the high ones.
ENGINE_INLINE U8x32 load_nibbles(const uint8_t* p) { ENGINE_BYTES(i < 16 ? p[i] & 15 : p[i - 16] >> 4); }
// (a >> shift) & mask; mask must not reach beyond bit 7 − shift
ENGINE_INLINE U8x32 field(U8x32 a, int shift, uint8_t mask) { ENGINE_BYTES((a.lane[i] >> shift) & mask); }
// No bit may leave its byte.
template <int kBits>
ENGINE_INLINE U8x32 shift_left_bytes(U8x32 a) {
  ENGINE_BYTES(a.lane[i] << kBits);
}
ENGINE_INLINE U8x32 operator|(U8x32 a, U8x32 b) { ENGINE_BYTES(a.lane[i] | b.lane[i]); }
ENGINE_INLINE U8x32 operator^(U8x32 a, U8x32 b) { ENGINE_BYTES(a.lane[i] ^ b.lane[i]); }
// Byte i is `value` if bit i of the 4 bytes at p is set, else 0.
ENGINE_INLINE U8x32 expand_bits(const uint8_t* p, uint8_t value) {
  ENGINE_BYTES((p[i / 8] >> (i % 8)) & 1 ? value : 0);
}
// table[index], indices 0 … 15
ENGINE_INLINE U8x32 lookup(const int8_t (&table)[16], U8x32 index) { ENGINE_BYTES(table[index.lane[i]]); }
#undef ENGINE_BYTES

#undef ENGINE_LANES

}  // namespace
}  // namespace engine::kernels
