import { normalCdf } from './reference-normal.js';

/** Everything but linear layers and attention: float64 inside, float32 results. Buffers are [numRows, width], row-major. */

/** Over groups of weight.length values. arXiv 1910.07467 */
export function rmsNorm(out: Float32Array, x: Float32Array, count: number, weight: Float32Array, eps: number): void {
  const width = weight.length;
  for (let start = 0; start < count; start += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[start + i]! * x[start + i]!;
    const factor = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) out[start + i] = x[start + i]! * factor * weight[i]!;
  }
}

/** Over rows of weight.length values; the variance is that of the whole row (not the sample's). arXiv 1607.06450 */
export function layerNorm(
  out: Float32Array,
  x: Float32Array,
  count: number,
  weight: Float32Array,
  bias: Float32Array | null,
  eps: number,
): void {
  const width = weight.length;
  for (let start = 0; start < count; start += width) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += x[start + i]!;
    const mean = sum / width;
    let squares = 0;
    for (let i = 0; i < width; i++) squares += (x[start + i]! - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) {
      out[start + i] = (x[start + i]! - mean) * factor * weight[i]! + (bias ? bias[i]! : 0);
    }
  }
}

/** Cosines and sines, [numRows, numPairs]. */
export interface RopeAngles {
  readonly numPairs: number;
  readonly cos: Float64Array;
  readonly sin: Float64Array;
}

/** Rotates the first 2 · numPairs values of every head of x [numRows, width] in place. arXiv 2104.09864 */
export function rope(
  x: Float32Array,
  numRows: number,
  width: number,
  headDim: number,
  angles: RopeAngles,
  interleaved: boolean,
): void {
  const { numPairs, cos, sin } = angles;
  const firstStep = interleaved ? 2 : 1;
  const distance = interleaved ? 1 : numPairs;
  for (let head = 0; head < numRows * width; head += headDim) {
    const angle = Math.floor(head / width) * numPairs;
    for (let i = 0; i < numPairs; i++) {
      const a = head + i * firstStep;
      const b = a + distance;
      const first = x[a]!;
      const second = x[b]!;
      x[a] = first * cos[angle + i]! - second * sin[angle + i]!;
      x[b] = first * sin[angle + i]! + second * cos[angle + i]!;
    }
  }
}

export function siluMul(out: Float32Array, gate: Float32Array, up: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) out[i] = (gate[i]! / (1 + Math.exp(-gate[i]!))) * up[i]!;
}

/**
 * x · Φ(x), or ½x · (1 + tanh u) with u = √(2/π) · (x + 0.044715x³). arXiv 1606.08415. The latter is written as
 * x / (1 + e^(−2u)), which is the same and keeps its precision where tanh u is near −1.
 */
export function gelu(out: Float32Array, x: Float32Array, count: number, approximate: boolean): void {
  for (let i = 0; i < count; i++) {
    const value = x[i]!;
    const u = Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3);
    out[i] = approximate ? value / (1 + Math.exp(-2 * u)) : value * normalCdf(value);
  }
}

export function add(x: Float32Array, y: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) x[i]! += y[i]!;
}
