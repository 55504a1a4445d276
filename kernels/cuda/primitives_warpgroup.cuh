// Matrix products of a warpgroup: 4 warps, the first of which has an index divisible by 4 (wgmma, sm_90a alone). They are
// asynchronous: registers and shared memory that a product reads or writes belong to it until it has been waited for. All
// 128 threads call each of these together.
#pragma once

#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {

// Whether the device has them.
ENGINE_DEVICE constexpr bool HasWarpgroupProducts() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  return true;
#else
  return false;
#endif
}

// Registers that each thread of the warpgroup has from now on, more or fewer than before; taking waits until others have
// given. Multiples of 8.
template <int kRegisters>
ENGINE_DEVICE void TakeRegisters() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
ENGINE_DEVICE void GiveRegisters() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

// Before the first product of a group: what was done to registers before, in `d` and all of `a`, is done.
template <int kSums, int kSteps>
ENGINE_DEVICE void BeginProducts(float (&d)[kSums], uint32_t (&a)[kSteps][4]) {
  ENGINE_UNROLL
  for (int i = 0; i < kSums; i++) asm volatile("" : "+f"(d[i])::"memory");
  ENGINE_UNROLL
  for (int i = 0; i < kSteps * 4; i++) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

#define ENGINE_SUMS4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define ENGINE_SUMS16(i) ENGINE_SUMS4(i), ENGINE_SUMS4((i) + 4), ENGINE_SUMS4((i) + 8), ENGINE_SUMS4((i) + 12)
#define ENGINE_SUMS32(i) ENGINE_SUMS16(i), ENGINE_SUMS16((i) + 16)

// d += a · b with a [64, 16] in registers and b [16, kColumns] in shared memory, in half precision, d [64, kColumns] in
// float32. A warp has 16 rows, and of them a and d as in MultiplyTiles: sums 4j … 4j + 3 are of columns 8j … 8j + 7. `b`
// is a matrix descriptor (warpgroup.cuh), the same in all threads.
template <int kColumns>
ENGINE_DEVICE void MultiplyWarpgroup(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128 || kColumns == 256);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kColumns == 64) {
    asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
      "%23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n"
      "}\n"
      : ENGINE_SUMS32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else if constexpr (kColumns == 128) {
    asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
      "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "
      "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, 0;\n"
      "}\n"
      : ENGINE_SUMS32(0), ENGINE_SUMS32(32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
      "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "
      "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, "
      "%67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, "
      "%89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, "
      "%109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "{%128, %129, %130, %131}, %132, add, 1, 1, 0;\n"
      "}\n"
      : ENGINE_SUMS32(0), ENGINE_SUMS32(32), ENGINE_SUMS32(64), ENGINE_SUMS32(96)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
#endif
}

#undef ENGINE_SUMS32
#undef ENGINE_SUMS16
#undef ENGINE_SUMS4

// The products since the last one are a group.
ENGINE_DEVICE void CommitProducts() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until at most kPending groups are under way; the sums are there once none is.
template <int kPending, int kSums>
ENGINE_DEVICE void WaitProducts(float (&d)[kSums]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
  ENGINE_UNROLL
  for (int i = 0; i < kSums; i++) asm volatile("" : "+f"(d[i])::"memory");
}

}  // namespace engine::cuda
