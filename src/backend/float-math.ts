/**
 * float32 exp and log as fixed sequences of rounded multiplications and additions (no fma), so that every backend gets
 * the same bits: sampled tokens must not depend on a machine's math library. Coefficients and reductions are those of
 * Cephes (S. L. Moshier, expf.c and logf.c, single precision); errors are below one unit in the last place.
 */
const { fround } = Math;

const LOG2_E = fround(Math.LOG2E);
/** ln 2 = LN2_HIGH + LN2_LOW; products of LN2_HIGH with small integers are exact. */
const LN2_HIGH = fround(0.693359375);
const LN2_LOW = fround(-2.1219444e-4);
const SQRT_HALF = fround(Math.SQRT1_2);

/** Below it e^x is 0, above MAX_EXPONENT infinite. */
const MIN_EXPONENT = fround(-87.33654);
const MAX_EXPONENT = fround(88.37626);

const expCoefficients = Float32Array.of(
  1.98756915e-4,
  1.3981999507e-3,
  8.3334519073e-3,
  4.1665795894e-2,
  1.6666665459e-1,
  5.0000001201e-1,
);

const logCoefficients = Float32Array.of(
  7.0376836292e-2,
  -1.151461031e-1,
  1.167699874e-1,
  -1.2420140846e-1,
  1.4249322787e-1,
  -1.6668057665e-1,
  2.0000714765e-1,
  -2.4999993993e-1,
  3.3333331174e-1,
);

/** The nearest integer, ties to even, for |x| < 2^51; NaN and infinities stay what they are. */
export function roundToEven(x: number): number {
  // The spacing of doubles at 1.5 · 2^52 is 1, so the addition itself rounds.
  return x + 6755399441055744 - 6755399441055744;
}

/** p = coefficients[0]; p = p · x + c for the rest, every operation rounded. */
function horner(coefficients: Float32Array, x: number): number {
  let p = coefficients[0]!;
  for (let i = 1; i < coefficients.length; i++) p = fround(fround(p * x) + coefficients[i]!);
  return p;
}

/** e^x for float32 x: NaN → NaN, below −87.33654 → 0, above 88.37626 → Infinity. */
export function exp32(x: number): number {
  if (x < MIN_EXPONENT) return 0;
  if (x > MAX_EXPONENT) return Infinity;
  // x = n · ln 2 + r
  const n = roundToEven(fround(x * LOG2_E));
  let r = fround(x - fround(n * LN2_HIGH));
  r = fround(r - fround(n * LN2_LOW));
  const p = horner(expCoefficients, r);
  let y = fround(p * fround(r * r));
  y = fround(y + r);
  y = fround(y + 1);
  return fround(y * powerOfTwo(n));
}

/** 2^n for −126 ≤ n ≤ 127, NaN for NaN. */
function powerOfTwo(n: number): number {
  if (Number.isNaN(n)) return NaN;
  word[0] = (n + 127) << 23;
  return float[0]!;
}

/** ln x for a positive normal float32 x. */
export function log32(x: number): number {
  // x = m · 2^e with m in [√½, √2); f = m − 1
  float[0] = x;
  let e = (word[0]! >> 23) - 126;
  word[0] = (word[0]! & 0x007fffff) | 0x3f000000; // m in [0.5, 1)
  const m = float[0]!;
  let f: number;
  if (m < SQRT_HALF) {
    e -= 1;
    f = fround(fround(m + m) - 1);
  } else {
    f = fround(m - 1);
  }
  const z = fround(f * f);
  const p = horner(logCoefficients, f);
  let y = fround(fround(p * f) * z);
  y = fround(y + fround(e * LN2_LOW));
  y = fround(y + fround(-0.5 * z));
  return fround(fround(f + y) + fround(e * LN2_HIGH));
}

/** One float32 and its bits. */
const float = new Float32Array(1);
const word = new Int32Array(float.buffer);
