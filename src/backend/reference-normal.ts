/** Below it the series is used, above it the continued fraction; both reach float64 there. */
const TAIL = 2;
const FRACTION_TERMS = 100;

/**
 * Φ(x), the cumulative distribution of the standard normal, with a small relative error in both tails. Near 0,
 * Φ(x) = ½ + φ(x) · Σ_n x^(2n+1) / (1 · 3 · … · (2n + 1)), all of one sign; beyond, Laplace's continued fraction
 * Φ(−a) = φ(a) / (a + 1 / (a + 2 / (a + 3 / …))) (NIST DLMF 7.6.2 and 7.9.2).
 */
export function normalCdf(x: number): number {
  const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
  const a = Math.abs(x);
  if (a > TAIL) {
    let fraction = a;
    for (let n = FRACTION_TERMS; n > 0; n--) fraction = a + n / fraction;
    return x < 0 ? density / fraction : 1 - density / fraction;
  }
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-17; n++) {
    term *= (x * x) / (2 * n + 1);
    sum += term;
  }
  return 0.5 + density * sum;
}
