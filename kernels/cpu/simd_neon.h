// NEON with the dot-product extension (Armv8.2): four registers per vector.
#pragma once

#include <arm_neon.h>

#include "half.h"

namespace engine::kernels {
namespace {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};
struct Mask16 {
  uint32x4_t v[4];  // all ones or all zeros per lane
};
constexpr int kVectorRegisters = 8;

// Applies an expression in `i` to the four registers.
#define ENGINE_LANES(Type, expression)                    \
  Type result;                                            \
  for (int i = 0; i < 4; i++) result.v[i] = (expression); \
  return result

ENGINE_INLINE F32x16 splat(float a) { ENGINE_LANES(F32x16, vdupq_n_f32(a)); }
ENGINE_INLINE F32x16 zero() { return splat(0.0f); }
ENGINE_INLINE F32x16 load(const float* p) { ENGINE_LANES(F32x16, vld1q_f32(p + 4 * i)); }
ENGINE_INLINE F32x16 load_partial(const float* p, int n) {
  float padded[16] = {};
  memcpy(padded, p, static_cast<size_t>(n) * sizeof *p);
  return load(padded);
}
ENGINE_INLINE F32x16 load_f16(const uint16_t* p) {
  ENGINE_LANES(F32x16, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
ENGINE_INLINE F32x16 load_f16_partial(const uint16_t* p, int n) {
  uint16_t padded[16] = {};
  memcpy(padded, p, static_cast<size_t>(n) * sizeof *p);
  return load_f16(padded);
}
ENGINE_INLINE F32x16 load_bf16(const uint16_t* p) {
  ENGINE_LANES(F32x16, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}
ENGINE_INLINE F32x16 load_bf16_partial(const uint16_t* p, int n) {
  uint16_t padded[16] = {};
  memcpy(padded, p, static_cast<size_t>(n) * sizeof *p);
  return load_bf16(padded);
}
ENGINE_INLINE F32x16 load_i8(const int8_t* p) {
  const int8x16_t codes = vld1q_s8(p);
  const int16x8_t half[2] = {vmovl_s8(vget_low_s8(codes)), vmovl_s8(vget_high_s8(codes))};
  ENGINE_LANES(F32x16, vcvtq_f32_s32(vmovl_s16(i % 2 == 0 ? vget_low_s16(half[i / 2]) : vget_high_s16(half[i / 2]))));
}
ENGINE_INLINE void store(float* p, F32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
ENGINE_INLINE void store_partial(float* p, F32x16 a, int n) {
  float all[16];
  store(all, a);
  memcpy(p, all, static_cast<size_t>(n) * sizeof *p);
}
ENGINE_INLINE void store_f16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
ENGINE_INLINE void store_f16_partial(uint16_t* p, F32x16 a, int n) {
  uint16_t all[16];
  store_f16(all, a);
  memcpy(p, all, static_cast<size_t>(n) * sizeof *p);
}

ENGINE_INLINE F32x16 operator+(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, vaddq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE F32x16 operator-(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, vsubq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE F32x16 operator*(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, vmulq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE F32x16 operator/(F32x16 a, F32x16 b) { ENGINE_LANES(F32x16, vdivq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { ENGINE_LANES(F32x16, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
// Not vminq / vmaxq: those return NaN where x86 returns the second operand.
ENGINE_INLINE F32x16 min(F32x16 a, F32x16 b) {
  ENGINE_LANES(F32x16, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
ENGINE_INLINE F32x16 max(F32x16 a, F32x16 b) {
  ENGINE_LANES(F32x16, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
ENGINE_INLINE F32x16 abs(F32x16 a) { ENGINE_LANES(F32x16, vabsq_f32(a.v[i])); }
ENGINE_INLINE F32x16 round_even(F32x16 a) { ENGINE_LANES(F32x16, vrndnq_f32(a.v[i])); }

ENGINE_INLINE float32x4_t sum_to_4(F32x16 a) { return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3])); }
ENGINE_INLINE float sum(F32x16 a) {
  const float32x4_t s4 = sum_to_4(a);
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
ENGINE_INLINE float32x4_t sum_pairs_to_2(float32x4_t a, float32x4_t b) {  // a0 + a2, b0 + b2, a1 + a3, b1 + b3
  return vaddq_f32(vzip1q_f32(a, b), vzip2q_f32(a, b));
}
ENGINE_INLINE void store_sums(float* out, F32x16 a, F32x16 b, F32x16 c, F32x16 d) {
  const float32x4_t ab = sum_pairs_to_2(sum_to_4(a), sum_to_4(b));
  const float32x4_t cd = sum_pairs_to_2(sum_to_4(c), sum_to_4(d));
  vst1q_f32(out, vaddq_f32(vcombine_f32(vget_low_f32(ab), vget_low_f32(cd)),
                           vcombine_f32(vget_high_f32(ab), vget_high_f32(cd))));
}
ENGINE_INLINE float max_lane(F32x16 a) {
  float lane[16];
  store(lane, a);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
  }
  return lane[0];
}

ENGINE_INLINE I32x16 splat_i32(int32_t a) { ENGINE_LANES(I32x16, vdupq_n_s32(a)); }
ENGINE_INLINE I32x16 zero_i32() { return splat_i32(0); }
ENGINE_INLINE I32x16 load_i32(const int32_t* p) { ENGINE_LANES(I32x16, vld1q_s32(p + 4 * i)); }
ENGINE_INLINE I32x16 load_u8(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t lo = vmovl_u8(vget_low_u8(bytes));
  const uint16x8_t hi = vmovl_u8(vget_high_u8(bytes));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(lo))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
ENGINE_INLINE I32x16 load_u8_pairs(const uint8_t* p) {
  ENGINE_LANES(I32x16, vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p + 8 * i))));
}
ENGINE_INLINE I32x16 load_i8_pairs(const uint8_t* p) {
  ENGINE_LANES(I32x16, vreinterpretq_s32_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(p + 8 * i)))));
}
ENGINE_INLINE void store_i32(int32_t* p, I32x16 a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + 4 * i, a.v[i]);
}
ENGINE_INLINE void store_i8(int8_t* p, I32x16 a) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t hi = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}

ENGINE_INLINE I32x16 operator+(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vaddq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 operator-(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vsubq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 operator*(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vmulq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 operator&(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vandq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 operator|(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vorrq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 operator^(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, veorq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE I32x16 max_i32(I32x16 a, I32x16 b) { ENGINE_LANES(I32x16, vmaxq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE int32x4_t mul_high_u32x4(uint32x4_t a, uint32x4_t b) {
  const uint32x2_t lo = vshrn_n_u64(vmull_u32(vget_low_u32(a), vget_low_u32(b)), 32);
  const uint32x2_t hi = vshrn_n_u64(vmull_u32(vget_high_u32(a), vget_high_u32(b)), 32);
  return vreinterpretq_s32_u32(vcombine_u32(lo, hi));
}
ENGINE_INLINE I32x16 mul_high_u32(I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, mul_high_u32x4(vreinterpretq_u32_s32(a.v[i]), vreinterpretq_u32_s32(b.v[i])));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_left(I32x16 a) {
  ENGINE_LANES(I32x16, vshlq_n_s32(a.v[i], kBits));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right(I32x16 a) {
  ENGINE_LANES(I32x16, vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), kBits)));
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right_signed(I32x16 a) {
  ENGINE_LANES(I32x16, vshrq_n_s32(a.v[i], kBits));
}
ENGINE_INLINE int32_t sum_i32(I32x16 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}
ENGINE_INLINE int32_t max_lane_i32(I32x16 a) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[1]), vmaxq_s32(a.v[2], a.v[3])));
}

ENGINE_INLINE F32x16 to_float(I32x16 a) { ENGINE_LANES(F32x16, vcvtq_f32_s32(a.v[i])); }
ENGINE_INLINE I32x16 to_int(F32x16 a) { ENGINE_LANES(I32x16, vcvtnq_s32_f32(a.v[i])); }
ENGINE_INLINE F32x16 as_float(I32x16 a) { ENGINE_LANES(F32x16, vreinterpretq_f32_s32(a.v[i])); }
ENGINE_INLINE I32x16 as_int(F32x16 a) { ENGINE_LANES(I32x16, vreinterpretq_s32_f32(a.v[i])); }

ENGINE_INLINE Mask16 less(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, vcltq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE Mask16 less_equal(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, vcleq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE Mask16 equal(F32x16 a, F32x16 b) { ENGINE_LANES(Mask16, vceqq_f32(a.v[i], b.v[i])); }
ENGINE_INLINE Mask16 less_i32(I32x16 a, I32x16 b) { ENGINE_LANES(Mask16, vcltq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE Mask16 equal_i32(I32x16 a, I32x16 b) { ENGINE_LANES(Mask16, vceqq_s32(a.v[i], b.v[i])); }
ENGINE_INLINE Mask16 operator&(Mask16 a, Mask16 b) { ENGINE_LANES(Mask16, vandq_u32(a.v[i], b.v[i])); }
ENGINE_INLINE F32x16 select(Mask16 mask, F32x16 a, F32x16 b) {
  ENGINE_LANES(F32x16, vbslq_f32(mask.v[i], a.v[i], b.v[i]));
}
ENGINE_INLINE I32x16 select(Mask16 mask, I32x16 a, I32x16 b) {
  ENGINE_LANES(I32x16, vbslq_s32(mask.v[i], a.v[i], b.v[i]));
}
ENGINE_INLINE uint32_t bits(Mask16 a) {
  const uint32_t weights[4] = {1, 2, 4, 8};
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) result |= vaddvq_u32(vandq_u32(a.v[i], vld1q_u32(weights))) << (4 * i);
  return result;
}
ENGINE_INLINE bool any(Mask16 a) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(a.v[0], a.v[1]), vorrq_u32(a.v[2], a.v[3]))) != 0;
}

struct U8x32 {
  uint8x16_t v[2];
};
ENGINE_INLINE U8x32 load_bytes(const uint8_t* p) { return {{vld1q_u8(p), vld1q_u8(p + 16)}}; }
ENGINE_INLINE U8x32 load_half(const uint8_t* p) { return {{vld1q_u8(p), vdupq_n_u8(0)}}; }
ENGINE_INLINE U8x32 load_halves(const uint8_t* p, const uint8_t* q) { return {{vld1q_u8(p), vld1q_u8(q)}}; }
ENGINE_INLINE void store_bytes(uint8_t* p, U8x32 a) {
  vst1q_u8(p, a.v[0]);
  vst1q_u8(p + 16, a.v[1]);
}
ENGINE_INLINE U8x32 load_nibbles(const uint8_t* p) {
  const uint8x16_t a = vld1q_u8(p);
  return {{vandq_u8(a, vdupq_n_u8(15)), vshrq_n_u8(a, 4)}};
}
ENGINE_INLINE U8x32 field(U8x32 a, int shift, uint8_t mask) {
  const int8x16_t right = vdupq_n_s8(static_cast<int8_t>(-shift));
  return {{vandq_u8(vshlq_u8(a.v[0], right), vdupq_n_u8(mask)), vandq_u8(vshlq_u8(a.v[1], right), vdupq_n_u8(mask))}};
}
template <int kBits>
ENGINE_INLINE U8x32 shift_left_bytes(U8x32 a) {
  return {{vshlq_n_u8(a.v[0], kBits), vshlq_n_u8(a.v[1], kBits)}};
}
ENGINE_INLINE U8x32 operator|(U8x32 a, U8x32 b) { return {{vorrq_u8(a.v[0], b.v[0]), vorrq_u8(a.v[1], b.v[1])}}; }
ENGINE_INLINE U8x32 operator^(U8x32 a, U8x32 b) { return {{veorq_u8(a.v[0], b.v[0]), veorq_u8(a.v[1], b.v[1])}}; }
ENGINE_INLINE U8x32 expand_bits(const uint8_t* p, uint8_t value) {
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const auto half = [&](const uint8_t* bytes) {
    const uint8x16_t repeated = vcombine_u8(vdup_n_u8(bytes[0]), vdup_n_u8(bytes[1]));
    return vandq_u8(vtstq_u8(repeated, bit), vdupq_n_u8(value));
  };
  return {{half(p), half(p + 2)}};
}
ENGINE_INLINE U8x32 lookup(const int8_t (&table)[16], U8x32 index) {
  const uint8x16_t values = vreinterpretq_u8_s8(vld1q_s8(table));
  return {{vqtbl1q_u8(values, index.v[0]), vqtbl1q_u8(values, index.v[1])}};
}

#undef ENGINE_LANES

}  // namespace
}  // namespace engine::kernels
