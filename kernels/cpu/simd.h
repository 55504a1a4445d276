// The vector types all kernels are written with: 16 floats or 16 int32, whatever the machine's registers are. A kernel
// written with them gives the same bits on every instruction set, because each operation here does:
//   * add, sub, mul, div, fma and conversions are IEEE 754 with round-to-nearest-even, lane by lane;
//   * max(a, b) is a > b ? a : b and min(a, b) is a < b ? a : b, also for NaN and ±0;
//   * sum() adds lanes as the fixed tree 8 + 8, 4 + 4, 2 + 2, 1 + 1.
//
// Vocabulary (see simd_scalar.h for the definition of each in plain C++):
//   F32x16   load store load_partial store_partial splat zero  + − · / fma min max abs round_even
//            sum store_sums max_lane
//            load_f16 load_f16_partial store_f16 store_f16_partial load_bf16 load_bf16_partial load_i8
//   I32x16   load_i32 load_u8 load_u8_pairs load_i8_pairs store_i32 splat_i32 zero_i32  + − · (low 32 bits) & | ^
//            max_i32 mul_high_u32
//            shift_left<N> shift_right<N> (logical) shift_right_signed<N> sum_i32 max_lane_i32 store_i8
//   both     to_float to_int (nearest even) as_float as_int (bit casts)
//   U8x32    load_bytes load_half load_halves store_bytes load_nibbles field shift_left_bytes  | ^  expand_bits
//            lookup (codes of weights)
//   Mask16   less less_equal equal  less_i32 equal_i32  &  select any bits
//
// This header is compiled once per instruction set (isa.cc). Everything is in an anonymous namespace: inline functions
// with one name but different machine code would be merged by the linker into whichever it saw first.
#pragma once

#include <math.h>
#include <string.h>

#include <cstddef>
#include <cstdint>

#if defined(_MSC_VER) && !defined(__clang__)
#define ENGINE_INLINE __forceinline
#else
#define ENGINE_INLINE inline __attribute__((always_inline))
#endif

// Unrolls the loop that follows, so that its index is a constant in the body. Arrays of vectors then live in registers.
#if !defined(ENGINE_ISA_AVX512) && !defined(ENGINE_ISA_AVX2) && !defined(ENGINE_ISA_NEON)
#define ENGINE_UNROLL  // a vector is an array itself, and compiling would take a minute
#elif defined(__clang__)
#define ENGINE_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define ENGINE_UNROLL _Pragma("GCC unroll 16")
#else
#define ENGINE_UNROLL
#endif

#if defined(__GNUC__)
#define ENGINE_PREFETCH(address) __builtin_prefetch(address)
#else
#define ENGINE_PREFETCH(address) static_cast<void>(address)
#endif

#if defined(ENGINE_ISA_AVX512)
#include "simd_avx512.h"
#elif defined(ENGINE_ISA_AVX2)
#include "simd_avx2.h"
#elif defined(ENGINE_ISA_NEON)
#include "simd_neon.h"
#else
#include "simd_scalar.h"
#endif

namespace engine::kernels {
namespace {

// To the left by n bits, or to the right by −n, for −4 … 4; free to choose where n is a constant.
ENGINE_INLINE I32x16 shift_by(I32x16 a, int n) {
  switch (n) {
    case 4:
      return shift_left<4>(a);
    case 3:
      return shift_left<3>(a);
    case 2:
      return shift_left<2>(a);
    case 1:
      return shift_left<1>(a);
    case -1:
      return shift_right<1>(a);
    case -2:
      return shift_right<2>(a);
    case -3:
      return shift_right<3>(a);
    case -4:
      return shift_right<4>(a);
    default:
      return a;
  }
}

}  // namespace
}  // namespace engine::kernels
