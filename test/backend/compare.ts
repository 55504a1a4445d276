/**
 * Fails unless every value agrees within tolerance · (largest finite magnitude of `expected`); NaN agrees with NaN,
 * infinities with themselves. Tolerance 0 asks for equal values.
 */
export function expectClose(actual: Float32Array, expected: Float32Array, tolerance: number, what: string): void {
  if (actual.length !== expected.length) throw new Error(`${what}: ${actual.length} values, not ${expected.length}`);
  let largest = 0;
  for (const value of expected) if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    const agree = Object.is(a, e) || Math.abs(a - e) <= tolerance * largest;
    if (!agree) throw new Error(`${what}: value ${i} is ${a}, expected ${e} (tolerance ${tolerance} · ${largest})`);
  }
}
