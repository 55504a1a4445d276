// exp and log in float32 without fused operations, the very bits of kernels/cpu/math.inc and src/backend/float-math.ts,
// so that sampled tokens do not depend on the backend. Coefficients and range reduction are those of Cephes (S. L.
// Moshier, expf.c and logf.c).
#pragma once

#include "kernels/cuda/primitives.cuh"

namespace engine::cuda {
namespace {

inline constexpr uint32_t kInfinityBits = 0x7f800000;
ENGINE_DEVICE float Infinity() { return FloatOf(kInfinityBits); }
ENGINE_DEVICE float NotANumber() { return FloatOf(0x7fc00000); }
ENGINE_DEVICE bool IsFinite(float x) { return (BitsOf(x) & kInfinityBits) != kInfinityBits; }
ENGINE_DEVICE float Magnitude(float x) { return FloatOf(BitsOf(x) & 0x7fffffff); }

// p(x) with the highest coefficient first, every operation rounded.
template <int kCount>
ENGINE_DEVICE float Horner(float x, const float (&coefficients)[kCount]) {
  float p = coefficients[0];
  ENGINE_UNROLL
  for (int i = 1; i < kCount; i++) p = Add(Multiply(p, x), coefficients[i]);
  return p;
}

// ln 2 = kLn2High + kLn2Low
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;

// e^x: NaN → NaN, below −87.33654 → 0, above 88.37626 → ∞.
ENGINE_DEVICE float Exp(float x) {
  constexpr float kLowest = -87.33654f;
  constexpr float kHighest = 88.37626f;
  if (x < kLowest) return 0.0f;
  if (x > kHighest) return Infinity();
  if (x != x) return x;
  const float n = RoundEven(Multiply(x, 1.44269504f));  // x = n · ln 2 + r
  float r = Add(x, -Multiply(n, kLn2High));
  r = Add(r, -Multiply(n, kLn2Low));
  const float coefficients[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  float y = Multiply(Horner(r, coefficients), Multiply(r, r));
  y = Add(Add(y, r), 1.0f);
  return Multiply(y, FloatOf(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23));
}

// ln x for positive normal x.
ENGINE_DEVICE float Log(float x) {
  // x = m · 2^e with m in [√½, √2); f = m − 1
  const uint32_t word = BitsOf(x);
  const float m = FloatOf((word & 0x007fffff) | 0x3f000000);
  float e = static_cast<float>(static_cast<int32_t>(word >> 23) - 126);
  float f = Add(m, -1.0f);
  if (m < 0.70710678118f) {
    e = Add(e, -1.0f);
    f = Add(Add(m, m), -1.0f);
  }
  const float z = Multiply(f, f);
  const float coefficients[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  float y = Multiply(Multiply(Horner(f, coefficients), f), z);
  y = Add(y, Multiply(e, kLn2Low));
  y = Add(y, Multiply(-0.5f, z));
  return Add(Add(f, y), Multiply(e, kLn2High));
}

}  // namespace
}  // namespace engine::cuda
