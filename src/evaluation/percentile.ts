/**
 * Percentiles of numbers in ascending order, interpolated between neighbours as NumPy does (Hyndman and Fan's seventh
 * definition). NaN of nothing.
 *
 * @param percent 0 to 100
 */
export function percentile(ascending: Float32Array, percent: number): number {
  const at = (percent / 100) * (ascending.length - 1);
  const below = Math.floor(at);
  const low = ascending[below] ?? Number.NaN;
  const high = ascending[Math.ceil(at)] ?? Number.NaN;
  // Infinity has no distance from itself.
  return low === high ? low : low + (high - low) * (at - below);
}
