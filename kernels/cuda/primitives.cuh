// All that kernels use of CUDA: names for its threads, warps, barriers, copies and matrix units. Compiled by nvcc they
// are instructions of the device (PTX ISA 8.0 and later); with ENGINE_CUDA_EMULATOR they are calls of
// test/native/cuda_emulator, which runs the very same kernels on a processor. Warp operations are of all 32 lanes.
//
// Half-precision numbers travel as bits: uint16_t is one, uint32_t two, the first in the low half.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(ENGINE_CUDA_EMULATOR)
#include "primitives_emulated.h"
#else

#define ENGINE_DEVICE __device__ __forceinline__
#define ENGINE_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
// A reference `name` to a variable that the block shares; it is not initialised.
#define ENGINE_SHARED(name, ...) __shared__ typename engine::cuda::SharedType<__VA_ARGS__>::Type name
#define ENGINE_UNROLL _Pragma("unroll")
#define ENGINE_NO_UNROLL _Pragma("unroll 1")

namespace engine::cuda {

template <class T>
struct SharedType {
  using Type = T;
};

// --- Threads ---------------------------------------------------------------------------------------------------------

ENGINE_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
ENGINE_DEVICE int NumThreads() { return static_cast<int>(blockDim.x); }
ENGINE_DEVICE int BlockIndex() { return static_cast<int>(blockIdx.x); }
ENGINE_DEVICE int BlockIndexY() { return static_cast<int>(blockIdx.y); }
ENGINE_DEVICE int NumBlocks() { return static_cast<int>(gridDim.x); }
ENGINE_DEVICE int NumBlocksY() { return static_cast<int>(gridDim.y); }

// All threads of every kernel call both, before any of them returns. The next launch on the stream may begin once all
// blocks have called the first; until the second returns, earlier launches may still run, so nothing may be read that
// one may write, and nothing written. (Programmatic dependent launch; both do nothing below compute capability 9.0.)
ENGINE_DEVICE void LetNextLaunchBegin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
ENGINE_DEVICE void WaitForEarlierLaunches() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The launch's shared memory, aligned to 16 bytes.
template <class T>
ENGINE_DEVICE T* SharedMemory() {
  extern __shared__ __align__(16) unsigned char engine_shared[];
  return reinterpret_cast<T*>(engine_shared);
}

ENGINE_DEVICE void SyncThreads() { __syncthreads(); }
ENGINE_DEVICE void SyncWarp() { __syncwarp(); }

template <class T>
ENGINE_DEVICE T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
ENGINE_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
ENGINE_DEVICE uint32_t Ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }

ENGINE_DEVICE int32_t AtomicAdd(int32_t* address, int32_t value) { return atomicAdd(address, value); }
ENGINE_DEVICE int32_t AtomicExchange(int32_t* address, int32_t value) { return atomicExch(address, value); }

// --- Numbers ---------------------------------------------------------------------------------------------------------

ENGINE_DEVICE uint32_t BitsOf(float value) { return __float_as_uint(value); }
ENGINE_DEVICE float FloatOf(uint32_t bits) { return __uint_as_float(bits); }
// Rounded by themselves: never made part of a fused multiply-add.
ENGINE_DEVICE float Multiply(float a, float b) { return __fmul_rn(a, b); }
ENGINE_DEVICE float Add(float a, float b) { return __fadd_rn(a, b); }
ENGINE_DEVICE double Multiply(double a, double b) { return __dmul_rn(a, b); }
ENGINE_DEVICE double Add(double a, double b) { return __dadd_rn(a, b); }
ENGINE_DEVICE float Divide(float a, float b) { return __fdiv_rn(a, b); }
ENGINE_DEVICE float SquareRoot(float a) { return __fsqrt_rn(a); }
ENGINE_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// The larger one; if one is NaN, the other.
ENGINE_DEVICE float Maximum(float a, float b) { return fmaxf(a, b); }
ENGINE_DEVICE float RoundEven(float a) { return rintf(a); }
ENGINE_DEVICE uint32_t MultiplyHigh(uint32_t a, uint32_t b) { return __umulhi(a, b); }
ENGINE_DEVICE int PopulationCount(uint32_t word) { return __popc(word); }
// 2^x to about 2 units in the last place, 0 for −∞.
ENGINE_DEVICE float PowerOfTwo(float x) { return exp2f(x); }
// The same in one instruction, with 0 for results below 2^−126.
ENGINE_DEVICE float FastPowerOfTwo(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

ENGINE_DEVICE uint16_t HalfOf(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
ENGINE_DEVICE uint32_t HalvesOf(float first, float second) {
  uint32_t halves;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(second), "f"(first));
  return halves;
}
ENGINE_DEVICE float FloatOfHalf(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
// a − b, and a · b + c, of pairs of halves.
ENGINE_DEVICE uint32_t SubtractHalves(uint32_t a, uint32_t b) {
  uint32_t difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}
ENGINE_DEVICE uint32_t FmaHalves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
// Bytes of b:a chosen by the nibbles of `selector`, 0 … 3 those of a.
ENGINE_DEVICE uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }

// --- Memory ----------------------------------------------------------------------------------------------------------

struct Words4 {
  uint32_t x, y, z, w;
};
// 16 aligned bytes at once.
ENGINE_DEVICE Words4 Load16(const void* address) {
  const uint4 words = *static_cast<const uint4*>(address);
  return {words.x, words.y, words.z, words.w};
}
ENGINE_DEVICE void Store16(void* address, Words4 words) {
  *static_cast<uint4*>(address) = make_uint4(words.x, words.y, words.z, words.w);
}

ENGINE_DEVICE uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes on their way from global to shared memory; those since the last CommitCopies are a group of this thread's.
ENGINE_DEVICE void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global) : "memory");
}
ENGINE_DEVICE void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of this thread's groups are under way.
template <int kPending>
ENGINE_DEVICE void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Whether the device copies whole stretches by itself (compute capability 9.0).
ENGINE_DEVICE constexpr bool HasBulkCopies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return true;
#else
  return false;
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// A barrier in shared memory whose phases end when `count` threads have arrived and the bytes that they expected have
// come.
ENGINE_DEVICE void BarrierInit(uint64_t* barrier, uint32_t count = 1) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
ENGINE_DEVICE void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// Arrives, and expects bytes.
ENGINE_DEVICE void BarrierExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended; phases begin with parity 0.
ENGINE_DEVICE void BarrierWait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}
// A multiple of 16 bytes, both addresses aligned to 16. The memory is read once: the cache may drop it first.
ENGINE_DEVICE void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}
// The same of memory that other blocks read too.
ENGINE_DEVICE void BulkCopyShared(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}
// What this thread has read of shared memory, it has read before a copy that is started after a later barrier writes
// there: such copies are not ordered with a thread's own accesses otherwise (PTX ISA: async proxy).
ENGINE_DEVICE void EndReadsBeforeBulkCopies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
ENGINE_DEVICE void BarrierInit(uint64_t*, uint32_t = 1) {}
ENGINE_DEVICE void BarrierArrive(uint64_t*) {}
ENGINE_DEVICE void BarrierExpect(uint64_t*, uint32_t) {}
ENGINE_DEVICE void BarrierWait(uint64_t*, uint32_t) {}
ENGINE_DEVICE void BulkCopy(void*, const void*, uint32_t, uint64_t*) {}
ENGINE_DEVICE void BulkCopyShared(void*, const void*, uint32_t, uint64_t*) {}
ENGINE_DEVICE void EndReadsBeforeBulkCopies() {}
#endif

// --- Matrix unit -----------------------------------------------------------------------------------------------------

// Four matrices of 8 rows by 8 halves from shared memory (ldmatrix): lane 8i + r gives the address of row r of matrix i,
// 16 aligned bytes. With g = lane / 4 and c = lane % 4, a lane gets in matrices[i] row g, columns 2c and 2c + 1 of
// matrix i; transposed, column g of rows 2c and 2c + 1.
ENGINE_DEVICE void LoadMatrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(SharedAddress(row))
               : "memory");
}
ENGINE_DEVICE void LoadTransposedMatrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// d += a · b with a [16, 16] and b [16, 8] in half precision, d [16, 8] in float32 (mma.m16n8k16). With g = lane / 4
// and c = lane % 4, a lane holds
//   a[0], a[2]  row g, columns 2c, 2c + 1 and 2c + 8, 2c + 9;  a[1], a[3]  the same of row g + 8
//   b0, b1      column g, rows 2c, 2c + 1 and 2c + 8, 2c + 9
//   d[0], d[1]  row g, columns 2c and 2c + 1;  d[2], d[3]  the same of row g + 8
ENGINE_DEVICE void MultiplyTiles(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace engine::cuda

#include "kernels/cuda/primitives_warpgroup.cuh"

#endif
