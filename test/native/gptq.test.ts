import { describe, expect, it } from 'vitest';
import { InputGram } from '../../src/backend/native-gptq.js';
import { loadNativeAddon } from '../../src/backend/native-loader.js';
import { quantisePanel } from '../../src/quantization/quantise-panel.js';
import { dequantiseRows } from '../../src/tensor/dtype.js';
import { PANEL_ROWS, type PackedDType, panelBytes } from '../../src/tensor/packed.js';
import { notBuilt } from '../backend/native-availability.js';
import { normalValues } from '../quantization/rows.js';
import { packedTypes } from '../tensor/random-blocks.js';

/** Inputs [rows, columns] whose columns are correlated, as those of a trained layer are. */
function correlatedInputs(rows: number, columns: number, seed: number): Float32Array {
  const x = normalValues(rows * columns, seed);
  for (let i = 0; i < x.length; i++) if (i % columns > 0) x[i] = 0.8 * x[i - 1]! + 0.6 * x[i]!;
  return x;
}

/** Xᵀ X, all of it. */
function product(x: Float32Array, columns: number): Float64Array {
  const gram = new Float64Array(columns * columns);
  for (let row = 0; row < x.length; row += columns) {
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < columns; j++) gram[i * columns + j]! += x[row + i]! * x[row + j]!;
    }
  }
  return gram;
}

async function gramOf(x: Float32Array, columns: number, threads: number): Promise<Float64Array> {
  const { addon } = loadNativeAddon();
  const gram = new Float64Array(columns * columns);
  const half = Math.floor(x.length / columns / 2) * columns;
  for (const part of [x.slice(0, half), x.slice(half)]) {
    expect(await addon.addGram({ isa: addon.isa()!, columns, threads }, { x: part, gram }).done).toBeUndefined();
  }
  return gram;
}

describe.skipIf(notBuilt)(`calibration in native code${notBuilt ?? ''}`, () => {
  it.each([1, 5, 33, 64, 130])('adds products of inputs with %i columns', async (columns) => {
    const x = correlatedInputs(75, columns, 1);
    const expected = product(x, columns);
    const gram = await gramOf(x, columns, 1);
    expect(await gramOf(x, columns, 3)).toEqual(gram);
    const scale = Math.max(...expected);
    for (let i = 0; i < columns; i++) {
      for (let j = i; j < columns; j++) {
        expect(Math.abs(gram[i * columns + j]! - expected[i * columns + j]!)).toBeLessThan(1e-6 * scale);
      }
    }
  });

  // Feedback F and weights w are right if F H Fᵀ is diagonal, and w in proportion to it.
  it.each([1, 5, 33, 64, 130])('turns them into weights and feedback: %i columns', async (columns) => {
    const x = correlatedInputs(2 * columns, columns, 2);
    const gram = new InputGram(columns, 3);
    await gram.add(x);
    const { weights, feedback } = await gram.toErrorModel();
    const h = product(x, columns);
    const damping = (0.01 / columns) * h.reduce((sum, value, i) => sum + (i % (columns + 1) === 0 ? value : 0), 0);
    for (let i = 0; i < columns; i++) h[i * (columns + 1)]! += damping;
    const at = (i: number, j: number) => feedback[i * columns + j]!;
    let largest = 0;
    const diagonal: number[] = [];
    for (let i = 0; i < columns; i++) {
      expect(at(i, i)).toBe(1);
      for (let j = 0; j < i; j++) expect(at(i, j)).toBe(0);
      const fh = Float64Array.from({ length: columns }, (_, b) => {
        let sum = 0;
        for (let a = i; a < columns; a++) sum += at(i, a) * h[a * columns + b]!;
        return sum;
      });
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let b = j; b < columns; b++) sum += fh[b]! * at(j, b);
        if (j === i) diagonal.push(sum);
        else largest = Math.max(largest, Math.abs(sum));
      }
    }
    expect(largest / Math.max(...diagonal)).toBeLessThan(1e-5);
    const most = Math.max(...diagonal);
    diagonal.forEach((value, i) => {
      expect(weights[i]! / (value / most)).toBeCloseTo(1, 3);
    });
  });

  it('gives equal weights and no feedback where there has been no input', async () => {
    const gram = new InputGram(40, 2);
    await gram.add(new Float32Array(40 * 7));
    const { weights, feedback } = await gram.toErrorModel();
    expect([...weights]).toEqual(Array(40).fill(1));
    expect([...feedback]).toEqual(Array.from({ length: 1600 }, (_, i) => (i % 41 === 0 ? 1 : 0)));
  });

  it('tells inputs that are not finite', async () => {
    const gram = new InputGram(8, 1);
    await gram.add(Float32Array.from({ length: 16 }, (_, i) => (i === 3 ? Number.NaN : 1)));
    expect(gram.isFinite()).toBe(false);
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const gram = new InputGram(1500, 1, controller.signal);
    await gram.add(normalValues(1500 * 4, 3));
    const done = gram.toErrorModel();
    controller.abort();
    await expect(done).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it.each([...packedTypes].filter((dtype) => dtype !== 'int8'))('lets outputs of %s lose less', async (dtype) => {
    const columns = 256;
    const x = correlatedInputs(1024, columns, 4);
    const gram = new InputGram(columns, 2);
    await gram.add(x);
    const errors = await gram.toErrorModel();
    const rows = normalValues(PANEL_ROWS * columns, 5);
    const outputError = (given: Parameters<typeof quantisePanel>[5]) =>
      squaredOutputError(dtype, rows, columns, x, given);
    expect(outputError(errors)).toBeLessThan(0.6 * outputError({}));
    expect(outputError({ weights: errors.weights })).toBeLessThan(1.02 * outputError({}));
  });
});

/** Σ (x · (weight − quantised weight))² over inputs and rows. */
function squaredOutputError(
  dtype: PackedDType,
  rows: Float32Array,
  columns: number,
  x: Float32Array,
  errors: Parameters<typeof quantisePanel>[5],
): number {
  const bytes = new Uint8Array(panelBytes(dtype, columns));
  quantisePanel(dtype, rows, columns, bytes, 0, errors);
  const decoded = new Float32Array(rows.length);
  dequantiseRows(dtype, bytes, columns, 0, PANEL_ROWS, decoded);
  let total = 0;
  for (let input = 0; input < x.length; input += columns) {
    for (let r = 0; r < rows.length; r += columns) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += x[input + k]! * (rows[r + k]! - decoded[r + k]!);
      total += sum * sum;
    }
  }
  return total;
}
