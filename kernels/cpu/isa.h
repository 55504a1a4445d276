// Names of the levels and of their tables, for the two sides that must agree on them: isa.cc and dispatch.cc.
#pragma once

#include "kernels.h"

// A level above NEON that adds one instruction to it.
#if defined(ENGINE_ISA_I8MM)
#define ENGINE_ISA_NEON
#endif

#if defined(ENGINE_ISA_AVX512)
#define ENGINE_ISA_TABLE kernels_avx512
#define ENGINE_ISA_NAME "avx512"
#elif defined(ENGINE_ISA_AVX2)
#define ENGINE_ISA_TABLE kernels_avx2
#define ENGINE_ISA_NAME "avx2"
#elif defined(ENGINE_ISA_I8MM)
#define ENGINE_ISA_TABLE kernels_i8mm
#define ENGINE_ISA_NAME "i8mm"
#elif defined(ENGINE_ISA_NEON)
#define ENGINE_ISA_TABLE kernels_neon
#define ENGINE_ISA_NAME "neon"
#else
#define ENGINE_ISA_TABLE kernels_scalar
#define ENGINE_ISA_NAME "scalar"
#endif

namespace engine::kernels {

extern const Kernels kernels_scalar;
extern const Kernels kernels_avx2;    // AVX2, FMA, F16C
extern const Kernels kernels_avx512;  // AVX-512 F, BW, DQ, VL, VNNI
extern const Kernels kernels_neon;    // Armv8.2 with dot product
extern const Kernels kernels_i8mm;    // and 8-bit matrix multiplication (Armv8.6)

}  // namespace engine::kernels
