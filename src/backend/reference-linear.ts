import { SCALE_GROUP } from '../tensor/integer-block.js';
import { PANEL_ROWS } from '../tensor/packed.js';
import type { IntegerRows, ReferenceMatrix } from './reference-matrix.js';
import type { QuantisedRows } from './reference-q8.js';

/**
 * Linear layers, four weight rows at a time: x is loaded once for four sums, and four chains of additions overlap. Every
 * output is one float64 sum over k in ascending order, so it depends on nothing but its own row of x.
 */

/** out[t, n] = Σ_k x[t, k] · weight[n, k] + bias[n]; x is [numRows, columns], out [numRows, rows]. */
export function linearFloat(
  out: Float32Array,
  x: Float32Array,
  numRows: number,
  weight: ReferenceMatrix,
  bias: Float32Array | null,
): void {
  const { rows, columns } = weight;
  const sums = new Float64Array(4);
  for (let first = 0; first < rows; first += PANEL_ROWS) {
    const count = Math.min(PANEL_ROWS, rows - first);
    const panel = weight.floatRows(first, count);
    for (let t = 0; t < numRows; t++) {
      for (let r = 0; r < count; r += 4) {
        dotFloats(sums, panel, r, count, x, t * columns, columns);
        storeSums(out, t * rows, first + r, Math.min(4, count - r), sums, bias);
      }
    }
  }
}

/** Row r + i of a panel, or its last row where there are fewer: that sum is not used. */
function clampedRow(r: number, i: number, count: number): number {
  return Math.min(r + i, count - 1);
}

function dotFloats(
  sums: Float64Array,
  panel: Float32Array,
  r: number,
  count: number,
  x: Float32Array,
  start: number,
  columns: number,
): void {
  const w0 = r * columns;
  const w1 = clampedRow(r, 1, count) * columns;
  const w2 = clampedRow(r, 2, count) * columns;
  const w3 = clampedRow(r, 3, count) * columns;
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let k = 0; k < columns; k++) {
    const value = x[start + k]!;
    s0 += panel[w0 + k]! * value;
    s1 += panel[w1 + k]! * value;
    s2 += panel[w2 + k]! * value;
    s3 += panel[w3 + k]! * value;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

function storeSums(
  out: Float32Array,
  start: number,
  n: number,
  count: number,
  sums: Float64Array,
  bias: Float32Array | null,
): void {
  for (let i = 0; i < count; i++) out[start + n + i] = sums[i]! + (bias ? bias[n + i]! : 0);
}

/**
 * The same with 8-bit activations. Block b of a row adds (d · scale) · S − (dmin · scale) · M with the exact integers
 * S = Σ scale_g · code · x and M = Σ min_g · Σ x over the block; blocks in ascending order.
 */
export function linearInteger(
  out: Float32Array,
  x: QuantisedRows,
  numRows: number,
  weight: ReferenceMatrix,
  bias: Float32Array | null,
): void {
  const { rows, columns, blockSize } = weight;
  const numBlocks = columns / blockSize;
  const products = new Int32Array(4);
  const sums = new Float64Array(4);
  for (let first = 0; first < rows; first += PANEL_ROWS) {
    const count = Math.min(PANEL_ROWS, rows - first);
    const panel = weight.integerRows(first, count);
    for (let t = 0; t < numRows; t++) {
      for (let r = 0; r < count; r += 4) {
        sums.fill(0);
        for (let b = 0; b < numBlocks; b++) {
          dotIntegers(products, panel, r, count, x, t, columns, b * blockSize, blockSize);
          const scale = x.scales[t * numBlocks + b]!;
          for (let i = 0; i < 4; i++) {
            const row = clampedRow(r, i, count);
            const block = row * numBlocks + b;
            sums[i]! += panel.d[block]! * scale * products[i]!;
            if (panel.dmin[block] !== 0) {
              sums[i]! -= panel.dmin[block]! * scale * dotMins(panel, row, x, t, columns, b * blockSize, blockSize);
            }
          }
        }
        storeSums(out, t * rows, first + r, Math.min(4, count - r), sums, bias);
      }
    }
  }
}

/** S of four rows. At most 256 · 4096 · 127 < 2^31 in any storage type. */
function dotIntegers(
  products: Int32Array,
  panel: IntegerRows,
  r: number,
  count: number,
  x: QuantisedRows,
  t: number,
  columns: number,
  from: number,
  blockSize: number,
): void {
  const { products: w } = panel;
  const { codes } = x;
  const start = t * columns + from;
  const w0 = r * columns + from;
  const w1 = clampedRow(r, 1, count) * columns + from;
  const w2 = clampedRow(r, 2, count) * columns + from;
  const w3 = clampedRow(r, 3, count) * columns + from;
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let k = 0; k < blockSize; k++) {
    const value = codes[start + k]!;
    s0 = (s0 + Math.imul(w[w0 + k]!, value)) | 0;
    s1 = (s1 + Math.imul(w[w1 + k]!, value)) | 0;
    s2 = (s2 + Math.imul(w[w2 + k]!, value)) | 0;
    s3 = (s3 + Math.imul(w[w3 + k]!, value)) | 0;
  }
  products[0] = s0;
  products[1] = s1;
  products[2] = s2;
  products[3] = s3;
}

/** M of one row. */
function dotMins(
  panel: IntegerRows,
  row: number,
  x: QuantisedRows,
  t: number,
  columns: number,
  from: number,
  blockSize: number,
): number {
  const minsStart = (row * columns + from) / SCALE_GROUP;
  const sumsStart = (t * columns + from) / SCALE_GROUP;
  let sum = 0;
  for (let g = 0; g < blockSize / SCALE_GROUP; g++) sum += panel.mins[minsStart + g]! * x.sums[sumsStart + g]!;
  return sum;
}
