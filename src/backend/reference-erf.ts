/**
 * The error function in float64, from erf(x) = 2/√π · exp(−x²) · Σ_n 2^n x^(2n+1) / (1 · 3 · … · (2n + 1)) (NIST DLMF
 * 7.6.2), whose terms all have the same sign, so that nothing cancels.
 */
export function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Number.isNaN(x) ? NaN : Math.sign(x); // 1 − erf(6) = 2e−17
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}
