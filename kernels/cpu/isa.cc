// One instruction set's table of kernels. CMake compiles this file once per level, with that level's compiler flags and
// ENGINE_ISA_AVX2, ENGINE_ISA_AVX512, ENGINE_ISA_NEON, ENGINE_ISA_I8MM or none of them (scalar).
#include "isa.h"

#include "simd.h"
// Bodies, all in anonymous namespaces and in terms of simd.h.
#include "attention.inc"
#include "elementwise.inc"
#include "linear.inc"
#include "pack.inc"
#include "peaks.inc"
#include "quantize_panel.inc"
#include "quantize_rows.inc"
#include "sample.inc"

namespace engine::kernels {

// Members in the order of kernels.h.
const Kernels ENGINE_ISA_TABLE = {
    .isa = ENGINE_ISA_NAME,
    .embed = embed,
    .add_rows = add_rows,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .quantize_rows = quantize_rows,
    .linear = linear,
    .rope = rope,
    .write_kv = write_kv,
    .attention = attention,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .add = add,
    .pack = pack,
    .sample = sample,
    .quantize_panel = quantize_panel,
    .read_bytes = read_bytes,
    .multiply_add = multiply_add,
    .multiply_codes = multiply_codes,
};

}  // namespace engine::kernels
