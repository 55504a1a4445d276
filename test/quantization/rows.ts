import { seededNormal } from '../tensor/random.js';

export function normalValues(count: number, seed: number, deviation = 1): Float32Array {
  const normal = seededNormal(seed);
  return Float32Array.from({ length: count }, () => normal() * deviation);
}

/** Student's t with five degrees of freedom: the heavy tails of trained weights. */
export function studentValues(count: number, seed: number): Float32Array {
  const normal = seededNormal(seed);
  return Float32Array.from({ length: count }, () => {
    let squares = 0;
    for (let i = 0; i < 5; i++) squares += normal() ** 2;
    return normal() / Math.sqrt(squares / 5);
  });
}

/** Rows that a search may stumble over, one after another, each of `columns` values. */
export function hostileRows(columns: number): Float32Array {
  const normal = normalValues(columns, 5);
  const rows: ((k: number) => number)[] = [
    () => 0,
    () => -0,
    (k) => (k === 7 ? 1 : 0),
    (k) => (k === columns - 1 ? -1e30 : 0),
    (k) => normal[k]! * 1e30,
    (k) => (k % 2 === 0 ? 3.4e38 : -3.4e38),
    (k) => normal[k]! * 1e-30,
    (k) => normal[k]! * 1e-31,
    (k) => normal[k]! * 1e-42,
    (k) => (k < 32 ? normal[k]! * 1e20 : normal[k]! * 1e-20),
    () => 0.7,
    () => -0.7,
    (k) => 1 + normal[k]! * 1e-3,
    (k) => -1 + normal[k]! * 1e-3,
    (k) => Math.abs(normal[k]!),
    (k) => -Math.abs(normal[k]!),
    (k) => k,
    (k) => (k % 16) - 8,
    (k) => (k === 0 ? 1000 : normal[k]!),
    (k) => (normal[k]! > 0 ? 1 : -1),
  ];
  return Float32Array.from({ length: rows.length * columns }, (_, i) => rows[Math.floor(i / columns)]!(i % columns));
}
