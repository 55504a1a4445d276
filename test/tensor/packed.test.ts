import { describe, expect, it } from 'vitest';
import { dequantiseRows, dtypes, forEachBlock, matrixBytes, partOffset } from '../../src/tensor/dtype.js';
import { createIntegerBlock } from '../../src/tensor/integer-block.js';
import {
  createPanelIntegers,
  type PackedDType,
  type PanelIntegers,
  packedLayouts,
  packPanel,
  panelBytes,
  unpackPanel,
} from '../../src/tensor/packed.js';
import { seededRandom } from './random.js';
import { packedTypes, randomMatrix } from './random-blocks.js';

/** Any integers that the type can hold. */
function randomPanel(dtype: PackedDType, columns: number, seed: number): PanelIntegers {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const { bits, mins } = packedLayouts[dtype];
  const panel = createPanelIntegers(dtype, columns);
  panel.codes.forEach((_, i) => {
    panel.codes[i] = bits === 8 ? below(255) - 127 : below(16);
  });
  panel.scales.forEach((_, i) => {
    panel.scales[i] = below(256);
    panel.mins[i] = mins ? below(256) : 0;
  });
  panel.d.forEach((_, r) => {
    panel.d[r] = (128 + below(128)) * 2 ** -20; // eight significant bits
    panel.m[r] = mins ? (128 + below(128)) * 2 ** -18 : 0;
  });
  return panel;
}

const widthsOf = (dtype: PackedDType) => [1, 2, 3, 4, 5, 9].map((groups) => groups * packedLayouts[dtype].groupSize);

describe('bytes of a matrix', () => {
  it('are 8.25, 4.5 and 4.25 bits a weight, and a line for each panel of 16 rows', () => {
    const bits = (dtype: PackedDType) => ((panelBytes(dtype, 4096) - 64) * 8) / (16 * 4096);
    expect(packedTypes.map((dtype) => [dtype, bits(dtype)])).toEqual([
      ['int8', 8.25],
      ['int4', 4.5],
      ['int4_g64', 4.25],
      ['int4_g128', 4.125],
      ['int4_sym', 4.25],
    ]);
  });

  it('count whole panels, and whole lines of factors of a last unit with fewer groups', () => {
    expect(panelBytes('int8', 32)).toBe(64 + 64 + 512);
    expect(panelBytes('int8', 5 * 32)).toBe(64 + 2 * 64 + 5 * 512);
    expect(panelBytes('int4', 3 * 32)).toBe(64 + 2 * 64 + 3 * 256);
    expect(panelBytes('int4_g128', 128)).toBe(64 + 64 + 1024);
    expect(matrixBytes('int4', 17, 64)).toBe(2 * (64 + 64 + 512));
    expect(matrixBytes('int4_g64', 16, 96)).toBeNull();
  });

  it('know where a part starts: with a panel, or nowhere', () => {
    expect(partOffset('int4', 32, 64)).toBe(2 * (64 + 64 + 512));
    expect(partOffset('int4', 24, 64)).toBeNull();
    expect(partOffset('q8_0', 3, 64)).toBe(3 * 2 * 34);
  });
});

describe.each(packedTypes)('%s', (dtype) => {
  it('gives back what was packed', () => {
    for (const columns of widthsOf(dtype)) {
      const panel = randomPanel(dtype, columns, columns);
      const bytes = new Uint8Array(128 + panelBytes(dtype, columns)).fill(0xaa);
      packPanel(dtype, panel, columns, bytes, 64);
      const back = createPanelIntegers(dtype, columns);
      unpackPanel(dtype, bytes, 64, columns, back);
      expect(back).toEqual(panel);
      expect([...bytes.subarray(0, 64), ...bytes.subarray(-64)].every((byte) => byte === 0xaa)).toBe(true);
    }
  });

  it('packs what was read to the same bytes', () => {
    for (const columns of widthsOf(dtype)) {
      const bytes = randomMatrix(dtype, 16, columns, columns);
      const panel = createPanelIntegers(dtype, columns);
      unpackPanel(dtype, bytes, 0, columns, panel);
      const again = new Uint8Array(bytes.length);
      packPanel(dtype, panel, columns, again, 0);
      const unused = unusedFactors(dtype, columns);
      expect(again).toEqual(bytes.map((byte, i) => (unused.has(i) ? 0 : byte)));
    }
  });

  it('has weights d · c · (q − bias) − m · z, in every row of several panels', () => {
    const { groupSize, bias } = packedLayouts[dtype];
    const columns = 3 * groupSize;
    const bytes = randomMatrix(dtype, 37, columns, 5);
    const weights = new Float32Array(37 * columns);
    dequantiseRows(dtype, bytes, columns, 0, 37, weights);
    const panel = createPanelIntegers(dtype, columns);
    for (let row = 0; row < 37; row++) {
      unpackPanel(dtype, bytes, Math.floor(row / 16) * panelBytes(dtype, columns), columns, panel);
      for (let k = 0; k < columns; k++) {
        const r = row % 16;
        const group = r * 3 + Math.floor(k / groupSize);
        const product = panel.d[r]! * panel.scales[group]! * (panel.codes[r * columns + k]! - bias);
        expect(weights[row * columns + k]).toBe(Math.fround(product - panel.m[r]! * panel.mins[group]!));
      }
    }
    const part = new Float32Array(5 * columns);
    dequantiseRows(dtype, bytes, columns, 14, 5, part);
    expect(part).toEqual(weights.subarray(14 * columns, 19 * columns));
  });

  it('has integers within 16 signed bits, whose sums over a block stay within 32', () => {
    const columns = dtypes[dtype].groupSize;
    const block = createIntegerBlock(32);
    const bytes = new Uint8Array(panelBytes(dtype, columns)).fill(dtype === 'int8' ? 0x80 : 0xff);
    bytes.fill(0xff, 0, 128); // largest factors
    forEachBlock(dtype, bytes, columns, 15, 1, block, () => {
      const product = Math.abs(block.scales[0]! * block.codes[0]!);
      expect(product).toBeLessThanOrEqual(2 ** 15);
      expect(32 * 127 * product).toBeLessThan(2 ** 31);
      expect(block.mins[1]).toBeLessThanOrEqual(255);
    });
  });
});

/** Factor bytes of the groups that a last unit does not have. */
function unusedFactors(dtype: PackedDType, columns: number): Set<number> {
  const { groupSize, groupsPerUnit, mins, bits } = packedLayouts[dtype];
  const groups = columns / groupSize;
  const present = groups % groupsPerUnit;
  const unused = new Set<number>();
  if (present === 0) return unused;
  const line = 64 + Math.floor(groups / groupsPerUnit) * (64 + groupsPerUnit * 2 * groupSize * bits);
  for (const start of mins ? [line, line + 32] : [line]) {
    for (let i = present * 16; i < groupsPerUnit * 16; i++) unused.add(start + i);
  }
  return unused;
}

describe('bytes set by hand', () => {
  const weightsOf = (dtype: PackedDType, columns: number, bytes: Uint8Array) => {
    const weights = new Float32Array(16 * columns);
    dequantiseRows(dtype, bytes, columns, 0, 16, weights);
    return (row: number, k: number) => weights[row * columns + k];
  };
  const bfloat = { one: 0x3f80, two: 0x4000, half: 0x3f00 };
  const put16 = (bytes: Uint8Array, offset: number, bits: number) => bytes.set([bits & 255, bits >> 8], offset);

  it('int8: row 3, value 37 lies in the second group, line 1, byte 4 · 3 + 1', () => {
    const bytes = new Uint8Array(panelBytes('int8', 160));
    put16(bytes, 2 * 3, bfloat.half);
    bytes[64 + 16 + 3] = 200; // c of group 1
    bytes[64 + 64 + 512 + 64 + 13] = 0x81; // −127
    expect(weightsOf('int8', 160, bytes)(3, 37)).toBe(-127 * 200 * 0.5);
  });

  it('int8: the fifth group starts a second unit', () => {
    const bytes = new Uint8Array(panelBytes('int8', 160));
    put16(bytes, 2 * 15, bfloat.one);
    const unit = 64 + 64 + 4 * 512;
    bytes[unit + 15] = 3;
    bytes[unit + 64 + 7 * 64 + 63] = 5;
    expect(weightsOf('int8', 160, bytes)(15, 159)).toBe(15);
  });

  it('int4: value 16 + k shares the byte of value k; mins follow the scales', () => {
    const bytes = new Uint8Array(panelBytes('int4', 96));
    put16(bytes, 2 * 2, bfloat.one);
    put16(bytes, 32 + 2 * 2, bfloat.two);
    bytes[64 + 16 + 2] = 10; // c of group 1
    bytes[64 + 32 + 16 + 2] = 7; // z of group 1
    bytes[64 + 64 + 256 + 64 + 4 * 2 + 1] = 0x9c; // values 32 + 5 and 32 + 21
    const weight = weightsOf('int4', 96, bytes);
    expect([weight(2, 37), weight(2, 53), weight(2, 38)]).toEqual([120 - 14, 90 - 14, -14]);
  });

  it('int4_g64: both halves of a group of 64 have its factors', () => {
    const bytes = new Uint8Array(panelBytes('int4_g64', 128));
    put16(bytes, 0, bfloat.one);
    bytes[64 + 16] = 4; // c of group 1
    bytes[64 + 64 + 512 + 256] = 0x03; // value 64 + 32
    expect(weightsOf('int4_g64', 128, bytes)(0, 96)).toBe(12);
  });

  it('int4_sym: code 8 is zero', () => {
    const bytes = new Uint8Array(panelBytes('int4_sym', 32)).fill(0x88);
    put16(bytes, 0, bfloat.one);
    bytes[64] = 6;
    bytes[128] = 0xf0; // values 0 and 16
    const weight = weightsOf('int4_sym', 32, bytes);
    expect([weight(0, 0), weight(0, 16), weight(0, 1)]).toEqual([-48, 42, 0]);
  });

  it('factors that are NaN or infinite give weights that are not finite, in their row only', () => {
    const bytes = new Uint8Array(panelBytes('int8', 32)).fill(1);
    for (let row = 0; row < 16; row++) put16(bytes, 2 * row, row === 4 ? 0x7fc0 : row === 5 ? 0x7f80 : bfloat.one);
    const weight = weightsOf('int8', 32, bytes);
    expect([weight(3, 0), weight(4, 0), weight(5, 0), weight(6, 0)]).toEqual([1, NaN, Infinity, 1]);
  });
});
