// AVX-512 F, BW, DQ, VL: one register per vector.
#pragma once

// The headers of GCC before 13 start vectors from themselves, where the value does not matter, and warn about it.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include "half.h"

namespace engine::kernels {
namespace {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
struct Mask16 {
  __mmask16 v;
};
constexpr int kVectorRegisters = 32;

ENGINE_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

ENGINE_INLINE F32x16 splat(float a) { return {_mm512_set1_ps(a)}; }
ENGINE_INLINE F32x16 zero() { return {_mm512_setzero_ps()}; }
ENGINE_INLINE F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
ENGINE_INLINE F32x16 load_partial(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
ENGINE_INLINE F32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ENGINE_INLINE F32x16 load_f16_partial(const uint16_t* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
}
ENGINE_INLINE F32x16 widen_bf16(__m256i a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16))};
}
ENGINE_INLINE F32x16 load_bf16(const uint16_t* p) {
  return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
ENGINE_INLINE F32x16 load_bf16_partial(const uint16_t* p, int n) {
  return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
ENGINE_INLINE F32x16 load_i8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
ENGINE_INLINE void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
ENGINE_INLINE void store_partial(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
ENGINE_INLINE __m256i narrow_f16(F32x16 a) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
ENGINE_INLINE void store_f16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_f16(a));
}
ENGINE_INLINE void store_f16_partial(uint16_t* p, F32x16 a, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow_f16(a));
}

ENGINE_INLINE F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
ENGINE_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
ENGINE_INLINE F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
ENGINE_INLINE F32x16 round_even(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

ENGINE_INLINE float sum(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
ENGINE_INLINE __m512 sum_to_8(F32x16 a, F32x16 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
}
ENGINE_INLINE void store_sums(float* out, F32x16 a, F32x16 b, F32x16 c, F32x16 d) {
  const __m512 ab = sum_to_8(a, b);
  const __m512 cd = sum_to_8(c, d);
  const __m512 s4 = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 s2 = _mm512_add_ps(s4, _mm512_permute_ps(s4, 0x4e));
  const __m512 s1 = _mm512_add_ps(s2, _mm512_permute_ps(s2, 0xb1));                  // a a a a b b b b c c c c d d d d
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s1)));  // the storing form is slow
}
ENGINE_INLINE float max_lane(F32x16 a) {
  const __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

ENGINE_INLINE I32x16 splat_i32(int32_t a) { return {_mm512_set1_epi32(a)}; }
ENGINE_INLINE I32x16 zero_i32() { return {_mm512_setzero_si512()}; }
ENGINE_INLINE I32x16 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
ENGINE_INLINE I32x16 load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
ENGINE_INLINE I32x16 load_u8_pairs(const uint8_t* p) {
  return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ENGINE_INLINE I32x16 load_i8_pairs(const uint8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ENGINE_INLINE void store_i32(int32_t* p, I32x16 a) { _mm512_storeu_si512(p, a.v); }
ENGINE_INLINE void store_i8(int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

ENGINE_INLINE I32x16 operator+(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
ENGINE_INLINE I32x16 operator-(I32x16 a, I32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
ENGINE_INLINE I32x16 operator*(I32x16 a, I32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
ENGINE_INLINE I32x16 operator&(I32x16 a, I32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
ENGINE_INLINE I32x16 operator|(I32x16 a, I32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
ENGINE_INLINE I32x16 operator^(I32x16 a, I32x16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
ENGINE_INLINE I32x16 max_i32(I32x16 a, I32x16 b) { return {_mm512_max_epi32(a.v, b.v)}; }
ENGINE_INLINE I32x16 mul_high_u32(I32x16 a, I32x16 b) {
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a.v, b.v), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
  return {_mm512_mask_blend_epi32(0xaaaa, even, odd)};
}
template <int kBits>
ENGINE_INLINE I32x16 shift_left(I32x16 a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right(I32x16 a) {
  return {_mm512_srli_epi32(a.v, kBits)};
}
template <int kBits>
ENGINE_INLINE I32x16 shift_right_signed(I32x16 a) {
  return {_mm512_srai_epi32(a.v, kBits)};
}
ENGINE_INLINE int32_t sum_i32(I32x16 a) { return _mm512_reduce_add_epi32(a.v); }
ENGINE_INLINE int32_t max_lane_i32(I32x16 a) { return _mm512_reduce_max_epi32(a.v); }

ENGINE_INLINE F32x16 to_float(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
ENGINE_INLINE I32x16 to_int(F32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
ENGINE_INLINE F32x16 as_float(I32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
ENGINE_INLINE I32x16 as_int(F32x16 a) { return {_mm512_castps_si512(a.v)}; }

ENGINE_INLINE Mask16 less(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
ENGINE_INLINE Mask16 less_equal(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
ENGINE_INLINE Mask16 equal(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
ENGINE_INLINE Mask16 less_i32(I32x16 a, I32x16 b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
ENGINE_INLINE Mask16 equal_i32(I32x16 a, I32x16 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
ENGINE_INLINE Mask16 operator&(Mask16 a, Mask16 b) { return {static_cast<__mmask16>(a.v & b.v)}; }
ENGINE_INLINE F32x16 select(Mask16 mask, F32x16 a, F32x16 b) { return {_mm512_mask_blend_ps(mask.v, b.v, a.v)}; }
ENGINE_INLINE I32x16 select(Mask16 mask, I32x16 a, I32x16 b) { return {_mm512_mask_blend_epi32(mask.v, b.v, a.v)}; }
ENGINE_INLINE uint32_t bits(Mask16 a) { return a.v; }
ENGINE_INLINE bool any(Mask16 a) { return a.v != 0; }

struct U8x32 {
  __m256i v;
};
ENGINE_INLINE U8x32 load_bytes(const uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
ENGINE_INLINE U8x32 load_half(const uint8_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_inserti128_si256(_mm256_setzero_si256(), half, 0)};
}
ENGINE_INLINE U8x32 load_halves(const uint8_t* p, const uint8_t* q) {
  return {_mm256_inserti128_si256(load_half(p).v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)), 1)};
}
ENGINE_INLINE void store_bytes(uint8_t* p, U8x32 a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
ENGINE_INLINE U8x32 load_nibbles(const uint8_t* p) {
  const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i shifted = _mm256_srlv_epi32(twice, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
  return {_mm256_and_si256(shifted, _mm256_set1_epi8(15))};
}
ENGINE_INLINE U8x32 field(U8x32 a, int shift, uint8_t mask) {
  return {_mm256_and_si256(_mm256_srli_epi16(a.v, shift), _mm256_set1_epi8(static_cast<char>(mask)))};
}
template <int kBits>
ENGINE_INLINE U8x32 shift_left_bytes(U8x32 a) {
  return {_mm256_slli_epi16(a.v, kBits)};
}
ENGINE_INLINE U8x32 operator|(U8x32 a, U8x32 b) { return {_mm256_or_si256(a.v, b.v)}; }
ENGINE_INLINE U8x32 operator^(U8x32 a, U8x32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
ENGINE_INLINE U8x32 expand_bits(const uint8_t* p, uint8_t value) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return {_mm256_maskz_set1_epi8(static_cast<__mmask32>(word), static_cast<char>(value))};
}
ENGINE_INLINE U8x32 lookup(const int8_t (&table)[16], U8x32 index) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), index.v)};
}

}  // namespace
}  // namespace engine::kernels
