import { SCALE_GROUP } from '../tensor/integer-block.js';
import { roundToEven } from './float-math.js';

/**
 * Rows of activations as 8-bit integers: x ≈ code · scale of its chunk. A chunk is one storage block of the weights the
 * row meets (32 or 256 values).
 */
export interface QuantisedRows {
  readonly codes: Int8Array; // [rows, columns] −127 … 127
  readonly scales: Float32Array; // [rows, columns / chunk]
  readonly sums: Int32Array; // [rows, columns / SCALE_GROUP] sums of codes
}

/** Chunks whose largest magnitude is below this count as zero, so that 127 / amax stays finite. */
const SMALLEST_AMAX = 2 ** -100;

export function createQuantisedRows(rows: number, columns: number, chunk: number): QuantisedRows {
  return {
    codes: new Int8Array(rows * columns),
    scales: new Float32Array((rows * columns) / chunk),
    sums: new Int32Array((rows * columns) / SCALE_GROUP),
  };
}

/** Quantises the first `count` values of x, a multiple of `chunk`. */
export function quantiseRows(x: Float32Array, count: number, chunk: number, out: QuantisedRows): void {
  const { codes, scales, sums } = out;
  for (let start = 0; start < count; start += chunk) {
    scales[start / chunk] = quantiseChunk(x, start, start + chunk, codes);
  }
  for (let group = 0; group < count; group += SCALE_GROUP) {
    let sum = 0;
    for (let i = group; i < group + SCALE_GROUP; i++) sum += codes[i]!;
    sums[group / SCALE_GROUP] = sum;
  }
}

/**
 * Codes of x[start … end) at the same places, and their scale. In float32, every operation rounded:
 *
 *     amax = max |x|;  scale = amax / 127;  inverse = 127 / amax;  code = roundToEven(x · inverse), clamped to ±127
 *
 * amax < 2^−100 gives scale 0 and codes 0. If any x is infinite or NaN, scale is NaN and the codes are 0: every output
 * that depends on the chunk becomes NaN, instead of some plausible number.
 */
export function quantiseChunk(x: Float32Array, start: number, end: number, codes: Int8Array): number {
  let amax = 0;
  let finite = true;
  for (let i = start; i < end; i++) {
    const magnitude = Math.abs(x[i]!);
    if (!(magnitude < Infinity)) finite = false;
    else if (magnitude > amax) amax = magnitude;
  }
  const usable = finite && amax >= SMALLEST_AMAX;
  const inverse = usable ? Math.fround(127 / amax) : 0;
  for (let i = start; i < end; i++) {
    codes[i] = usable ? Math.min(127, Math.max(-127, roundToEven(Math.fround(x[i]! * inverse)))) : 0;
  }
  return finite ? (usable ? Math.fround(amax / 127) : 0) : NaN;
}
