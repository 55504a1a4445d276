import { describe, expect, it } from 'vitest';
import { quantisePanel } from '../../src/quantization/quantise-panel.js';
import { dequantiseRows } from '../../src/tensor/dtype.js';
import {
  createPanelIntegers,
  PANEL_ROWS,
  type PackedDType,
  packedLayouts,
  panelBytes,
  unpackPanel,
} from '../../src/tensor/packed.js';
import { packedTypes } from '../tensor/random-blocks.js';
import { hostileRows, normalValues, studentValues } from './rows.js';

/** The panel's weights after quantising, [16, columns]. */
function roundTrip(dtype: PackedDType, rows: Float32Array, columns: number, weights?: Float32Array): Float32Array {
  const bytes = new Uint8Array(panelBytes(dtype, columns));
  quantisePanel(dtype, rows, columns, bytes, 0, weights && { weights });
  const out = new Float32Array(rows.length);
  dequantiseRows(dtype, bytes, columns, 0, PANEL_ROWS, out);
  return out;
}

/** Signal to noise, dB; of the columns where `counts`. */
function snr(exact: Float32Array, actual: Float32Array, counts: (i: number) => boolean = () => true): number {
  let signal = 0;
  let noise = 0;
  exact.forEach((value, i) => {
    if (!counts(i)) return;
    signal += value ** 2;
    noise += (value - actual[i]!) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}

/** ggml's Q4_0, 4.5 bits a weight: groups of 32, scale from the largest magnitude over −8. */
function q4_0(values: Float32Array): Float32Array {
  const out = new Float32Array(values.length);
  for (let g = 0; g < values.length; g += 32) {
    const group = values.subarray(g, g + 32);
    const scale = group.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0) / -8;
    group.forEach((value, i) => {
      out[g + i] = scale * Math.min(Math.max(Math.round(value / scale), -8), 7);
    });
  }
  return out;
}

describe('quantising a panel', () => {
  const columns = 2048;
  const normal = normalValues(PANEL_ROWS * columns, 1, 0.02);
  const student = studentValues(PANEL_ROWS * columns, 2);

  // Signal to noise in dB, for normally distributed weights and for Student's t with 5 degrees of freedom.
  it.each([
    ['int8', 45.7, 43.4],
    ['int4', 23.05, 21.75],
    ['int4_g64', 21.7, 19.9],
    ['int4_g128', 20.7, 18.2],
    ['int4_sym', 21.2, 19.1],
  ] as const)('%s keeps %f and %f dB', (dtype, forNormal, forStudent) => {
    const ofNormal = snr(normal, roundTrip(dtype, normal, columns));
    const ofStudent = snr(student, roundTrip(dtype, student, columns));
    expect(ofNormal).toBeGreaterThan(forNormal);
    expect(ofNormal).toBeLessThan(forNormal + 0.3);
    expect(ofStudent).toBeGreaterThan(forStudent);
    expect(ofStudent).toBeLessThan(forStudent + 0.5);
  });

  it('int4 is 1.5 dB and more above Q4_0 at the same size', () => {
    expect(panelBytes('int4', columns) / (PANEL_ROWS * (columns / 32) * 18)).toBeCloseTo(1, 2);
    for (const values of [normal, student]) {
      expect(snr(values, roundTrip('int4', values, columns)) - snr(values, q4_0(values))).toBeGreaterThan(1.5);
    }
  });

  it('makes errors small where they count', () => {
    const weights = Float32Array.from({ length: columns }, (_, k) => (k % 2 === 0 ? 1 : 0.01));
    const even = (i: number) => i % 2 === 0;
    const weighted = roundTrip('int4', normal, columns, weights);
    const plain = roundTrip('int4', normal, columns);
    expect(snr(normal, weighted, even)).toBeGreaterThan(snr(normal, plain, even) + 0.5);
    expect(snr(normal, weighted)).toBeLessThan(snr(normal, plain));
  });

  it('is not led astray by weights of zero', () => {
    const some = Float32Array.from({ length: columns }, (_, k) => (k % 32 === 0 ? 0 : 1));
    const counts = (i: number) => i % 32 !== 0;
    expect(snr(normal, roundTrip('int4', normal, columns, some), counts)).toBeGreaterThan(23);
    expect(snr(normal, roundTrip('int4', normal, columns, new Float32Array(columns)))).toBeGreaterThan(20);
  });

  describe.each(packedTypes)('%s', (dtype) => {
    const width = 256;
    const row = (value: (k: number) => number) => {
      const rows = new Float32Array(PANEL_ROWS * width);
      for (let k = 0; k < width; k++) rows[3 * width + k] = value(k);
      return roundTrip(dtype, rows, width).subarray(3 * width, 4 * width);
    };

    it('gives finite weights whatever it is given', () => {
      const hostile = hostileRows(width);
      for (let first = 0; first < hostile.length; first += PANEL_ROWS * width) {
        const rows = new Float32Array(PANEL_ROWS * width);
        rows.set(hostile.subarray(first, first + PANEL_ROWS * width));
        const actual = roundTrip(dtype, rows, width);
        expect(actual.every(Number.isFinite)).toBe(true);
        rows.forEach((value, i) => {
          const start = i - (i % width);
          const largest = rows.subarray(start, start + width).reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          const [kept, most] = [value, largest].map((v) => Math.min(Math.max(v, -(2 ** 126)), 2 ** 126));
          expect(Math.abs(actual[i]! - kept!)).toBeLessThanOrEqual(most! < 2 ** -100 ? most! : 0.2 * most!);
        });
      }
    });

    it('keeps zeros, and rows beside them', () => {
      expect([...row(() => 0)]).toEqual(Array(width).fill(0));
      const rows = Float32Array.from({ length: PANEL_ROWS * width }, (_, i) => (i < 5 * width ? 0 : normal[i]!));
      const actual = roundTrip(dtype, rows, width);
      expect([...actual.subarray(0, 5 * width)]).toEqual(Array(5 * width).fill(0));
      expect(snr(rows, actual)).toBeGreaterThan(18);
    });

    it('keeps a single spike', () => {
      for (const spike of [3, -3, 1e30, -1e-29]) {
        const actual = row((k) => (k === 77 ? spike : 0));
        expect(Math.abs(actual[77]! / spike - 1)).toBeLessThan(0.02);
        expect([...actual].filter((value) => Math.abs(value / spike) > 0.002).length).toBe(1);
      }
    });

    it('does not depend on the unit of weights, as long as it is a power of two', () => {
      const values = normal.subarray(0, PANEL_ROWS * width);
      const expected = roundTrip(dtype, values, width);
      for (const unit of [2 ** -80, 2 ** 100]) {
        const actual = roundTrip(
          dtype,
          values.map((value) => value * unit),
          width,
        );
        expect(actual.map((value) => value / unit)).toEqual(expected);
      }
    });

    it('uses no factor codes of zero in rows that are not zero, and codes in range', () => {
      const bytes = new Uint8Array(panelBytes(dtype, width));
      quantisePanel(dtype, normal.subarray(0, PANEL_ROWS * width), width, bytes, 0);
      const panel = createPanelIntegers(dtype, width);
      unpackPanel(dtype, bytes, 0, width, panel);
      expect(Math.min(...panel.scales)).toBeGreaterThan(0);
      expect(Math.max(...panel.scales)).toBeGreaterThan(250);
      const { bits } = packedLayouts[dtype];
      expect(Math.min(...panel.codes)).toBeGreaterThanOrEqual(bits === 8 ? -127 : 0);
      expect(Math.max(...panel.codes)).toBeLessThanOrEqual(bits === 8 ? 127 : 15);
    });
  });
});
