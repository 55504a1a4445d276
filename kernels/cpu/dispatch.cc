// Chooses the instruction set once, from what the processor has and what the operating system saves on a task switch.
#include <string.h>

#include "isa.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_M_ARM64)
#include <windows.h>
#endif

namespace engine::kernels {
namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf) {
  Registers r = {};
#if defined(_MSC_VER)
  int words[4];
  __cpuidex(words, 0, 0);
  if (static_cast<uint32_t>(words[0]) < leaf) return r;
  __cpuidex(words, static_cast<int>(leaf), 0);
  memcpy(&r, words, sizeof r);
#else
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);  // leaves r alone if there is no such leaf
#endif
  return r;
}

// Register sets the operating system saves (XCR0).
uint64_t enabled_state() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

bool all(uint64_t word, uint64_t bits) { return (word & bits) == bits; }
constexpr uint32_t bit(int n) { return 1u << n; }

bool has_avx2() {
  // FMA, OSXSAVE, AVX, F16C; XMM and YMM state; AVX2
  return all(cpuid(1).ecx, bit(12) | bit(27) | bit(28) | bit(29)) && all(enabled_state(), 0x6) &&
         all(cpuid(7).ebx, bit(5));
}

bool has_avx512() {
  // opmask and ZMM state; F, DQ, BW, VL; VNNI
  return has_avx2() && all(enabled_state(), 0xe6) && all(cpuid(7).ebx, bit(16) | bit(17) | bit(30) | bit(31)) &&
         all(cpuid(7).ecx, bit(11));
}

#elif defined(__aarch64__) || defined(_M_ARM64)

bool has_neon() {
#if defined(__APPLE__)
  return true;  // every arm64 Mac has the dot product
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;                 // HWCAP_ASIMDDP
#elif defined(_M_ARM64)
  return IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE);
#else
  return false;
#endif
}

bool has_i8mm() {
#if defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &size, nullptr, 0) == 0 && value == 1;
#elif defined(__linux__)
  return has_neon() && (getauxval(AT_HWCAP2) & (1ul << 13)) != 0;  // HWCAP2_I8MM
#else
  return false;
#endif
}

#endif

bool always() { return true; }

struct Level {
  const Kernels* kernels;
  bool (*available)();
};

// From lowest to highest.
constexpr Level kLevels[] = {
    {&kernels_scalar, always},
#if defined(__x86_64__) || defined(_M_X64)
    {&kernels_avx2, has_avx2},
    {&kernels_avx512, has_avx512},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {&kernels_neon, has_neon},
#if !defined(_MSC_VER)
    {&kernels_i8mm, has_i8mm},
#endif
#endif
};

// Levels of other processors: known names that mean "the best there is below", so that one setting works everywhere.
constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "neon", "i8mm"};

bool known(const char* name) {
  for (const char* candidate : kNames) {
    if (strcmp(candidate, name) == 0) return true;
  }
  return false;
}

}  // namespace

const Kernels* select(const char* limit) {
  if (limit != nullptr && !known(limit)) return nullptr;
  const Kernels* best = nullptr;
  for (const Level& level : kLevels) {
    if (!level.available()) break;
    best = level.kernels;
    if (limit != nullptr && strcmp(best->isa, limit) == 0) break;
  }
  return best;
}

}  // namespace engine::kernels
