// One instruction set's table of kernels. CMake compiles this file once per level, with that level's compiler flags and
// ENGINE_ISA_AVX2, ENGINE_ISA_AVX512, ENGINE_ISA_NEON or none of them (scalar).
#include "isa.h"

#include "simd.h"
// Bodies, all in anonymous namespaces and in terms of simd.h.

namespace engine::kernels {

// Members in the order of kernels.h.
const Kernels ENGINE_ISA_TABLE = {
    .isa = ENGINE_ISA_NAME,
};

}  // namespace engine::kernels
