import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  type BlockDType,
  type DType,
  dequantiseRow,
  dtypeFromId,
  dtypes,
  isQuantised,
  matrixBytes,
} from '../../src/tensor/dtype.js';
import { createIntegerBlock, SCALE_GROUP } from '../../src/tensor/integer-block.js';
import { quantisedTypes, randomRow } from './random-blocks.js';

interface Golden {
  readonly types: Record<string, { readonly blocks: string; readonly values: string }>;
}
const golden = JSON.parse(readFileSync(new URL('golden-blocks.json', import.meta.url), 'utf8')) as Golden;

function floatsOf(base64: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
  return new Float32Array(bytes.buffer);
}

function dequantised(dtype: BlockDType, bytes: Uint8Array): Float32Array {
  const { blockSize, blockBytes, dequantise } = dtypes[dtype];
  const out = new Float32Array((bytes.length / blockBytes) * blockSize);
  for (let b = 0; b * blockBytes < bytes.length; b++) dequantise(bytes, b * blockBytes, out, b * blockSize);
  return out;
}

/** The bytes of a block, from a list of its parts. */
function block(...parts: readonly (readonly number[] | Uint8Array)[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

const repeat = (byte: number, count: number): number[] => new Array(count).fill(byte);
const HALF_ONE = [0x00, 0x3c];
const HALF_TWO = [0x00, 0x40];
const HALF_HALF = [0x00, 0x38];

describe('the table of storage types', () => {
  it('finds every type by its GGUF id, and nothing else', () => {
    for (const [name, row] of Object.entries(dtypes)) expect(dtypeFromId(row.id)).toBe(name);
    expect(dtypeFromId(9)).toBeNull();
  });

  it('knows the bytes of a matrix only where blocks divide its rows', () => {
    expect(matrixBytes('q4_k', 1, 512)).toBe(288);
    expect(matrixBytes('q4_k', 3, 128)).toBeNull();
    expect(matrixBytes('bf16', 3, 7)).toBe(42);
  });

  it('gives integers to quantised types only', () => {
    const without = (Object.keys(dtypes) as DType[]).filter((dtype) => !isQuantised(dtype));
    expect(without).toEqual(['f32', 'f16', 'bf16']);
  });
});

describe('golden blocks of gguf-py', () => {
  it('cover every quantised type', () => {
    expect(Object.keys(golden.types).sort()).toEqual([...quantisedTypes].sort());
  });

  it.each(quantisedTypes)('%s is dequantised to the same bits', (dtype) => {
    const { blocks, values } = golden.types[dtype]!;
    expect(dequantised(dtype, Uint8Array.from(Buffer.from(blocks, 'base64')))).toEqual(floatsOf(values));
  });
});

describe.each(quantisedTypes)('%s', (dtype) => {
  const { blockSize, blockBytes, dequantise, unpack } = dtypes[dtype];

  it('has integers that give its floats: d · scale · code − dmin · min', () => {
    const bytes = randomRow(dtype, 64 * blockSize, 11);
    const integers = createIntegerBlock(blockSize);
    const floats = new Float32Array(blockSize);
    for (let offset = 0; offset < bytes.length; offset += blockBytes) {
      unpack!(bytes, offset, integers);
      dequantise(bytes, offset, floats, 0);
      for (let i = 0; i < blockSize; i++) {
        const group = Math.floor(i / SCALE_GROUP);
        const product = integers.d * integers.scales[group]! * integers.codes[i]!;
        const min = integers.dmin * integers.mins[group]!;
        expect(Math.abs(floats[i]! - (product - min))).toBeLessThanOrEqual(1e-6 * (Math.abs(product) + Math.abs(min)));
      }
    }
  });

  it('has scale · code within 16 and mins within 8 signed bits, S of a block within 32', () => {
    const bytes = randomRow(dtype, 64 * blockSize, 12);
    const integers = createIntegerBlock(blockSize);
    for (let offset = 0; offset < bytes.length; offset += blockBytes) {
      unpack!(bytes, offset, integers);
      const products = Array.from(integers.codes, (code, i) => code * integers.scales[Math.floor(i / SCALE_GROUP)]!);
      expect(Math.max(...products.map(Math.abs))).toBeLessThan(2 ** 15);
      expect(Math.max(...products.map(Math.abs)) * 127 * blockSize).toBeLessThan(2 ** 31);
      expect(Math.max(...integers.mins)).toBeLessThan(128);
    }
  });

  it('reads a row of several blocks from any offset', () => {
    const bytes = randomRow(dtype, 3 * blockSize, 13);
    const shifted = block([0, 0, 0, 0, 0], bytes);
    const out = new Float32Array(3 * blockSize + 2);
    dequantiseRow(dtype, shifted, 5, 3 * blockSize, out, 1);
    expect(out.subarray(1, -1)).toEqual(dequantised(dtype, bytes));
    expect([out[0], out.at(-1)]).toEqual([0, 0]);
  });
});

describe('blocks written by hand', () => {
  it('f32, f16, bf16', () => {
    expect(dequantised('f32', block([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]))).toEqual(Float32Array.of(1, -2));
    expect(dequantised('f16', block([0x00, 0x3c, 0x01, 0x80]))).toEqual(Float32Array.of(1, -(2 ** -24)));
    expect(dequantised('bf16', block([0x80, 0x3f, 0x49, 0xc0]))).toEqual(Float32Array.of(1, -3.140625));
  });

  it('q4_0: low nibbles first, codes −8 … 7', () => {
    const values = dequantised('q4_0', block(HALF_TWO, [0xf0, 0x89], repeat(0x88, 14)));
    expect([...values.subarray(0, 3), ...values.subarray(16, 19)]).toEqual([-16, 2, 0, 14, 0, 0]);
  });

  it('q4_1 and q5_1: a minimum is added', () => {
    const q4 = dequantised('q4_1', block(HALF_TWO, HALF_HALF, [0xf1], repeat(0, 15)));
    expect([q4[0], q4[1], q4[16]]).toEqual([2.5, 0.5, 30.5]);
    // Fifth bits of codes 0 and 17.
    const q5 = dequantised('q5_1', block(HALF_ONE, HALF_HALF, [0x01, 0, 0x02, 0], [0x21, 0x43], repeat(0, 14)));
    expect([q5[0], q5[1], q5[2], q5[16], q5[17]]).toEqual([17.5, 3.5, 0.5, 2.5, 20.5]);
  });

  it('q5_0: codes −16 … 15', () => {
    const values = dequantised('q5_0', block(HALF_ONE, [0x01, 0x80, 0, 0x80], [0x0f], repeat(0, 14), [0xf0]));
    expect([values[0], values[1], values[15], values[31]]).toEqual([15, -16, 0, 15]);
  });

  it('q8_0: signed bytes', () => {
    const values = dequantised('q8_0', block(HALF_HALF, [0x80, 0x7f, 0xff], repeat(0, 29)));
    expect([...values.subarray(0, 4)]).toEqual([-64, 63.5, -0.5, 0]);
  });

  it('iq4_nl: a codebook', () => {
    const values = dequantised('iq4_nl', block(HALF_ONE, [0xf0], repeat(0x88, 15)));
    expect([values[0], values[1], values[16]]).toEqual([-127, 1, 113]);
  });

  it('q2_k: planes of 32 weights, a scale and a min per 16', () => {
    const scales = Uint8Array.from({ length: 16 }, (_, g) => (g === 3 ? 0x52 : 0x01));
    const codes = new Uint8Array(64);
    codes[16] = 0b11_00_10_01; // weights 16, 48, 80, 112: codes 1, 2, 0, 3
    const values = dequantised('q2_k', block(scales, codes, HALF_ONE, HALF_HALF));
    expect([values[16], values[48], values[80], values[112]]).toEqual([1, 2 * 2 - 2.5, 0, 3]);
  });

  it('q3_k: a clear high bit subtracts four; scales are six bits less 32', () => {
    const high = repeat(0xff, 32);
    high[5] = 0b1111_1101; // weight 37
    const codes = new Uint8Array(64);
    codes[5] = 0b00_00_11_10; // weights 5 and 37: codes 2 and 3
    // Groups 0 and 2: low nibbles 1 and 5; high bits 2 and 2 → 33 − 32 and 37 − 32.
    const scales = [0x01, 0, 0x05, 0, 0, 0, 0, 0, 0x02, 0, 0x02, 0];
    const values = dequantised('q3_k', block(high, codes, scales, HALF_ONE));
    expect([values[5], values[37]]).toEqual([1 * 2, 5 * (3 - 4)]);
  });

  it('q4_k and q5_k: six-bit scales and mins in two halves', () => {
    // Group 1 (weights 32 … 63): scale 3, min 2. Group 4 (128 …): scale 0x12, min 0x31.
    const scales = [0x40, 0x03, 0, 0, 0xc0, 0x02, 0, 0, 0x12, 0, 0, 0];
    const codes = new Uint8Array(128);
    codes[0] = 0x50; // weights 0 and 32
    codes[64] = 0x07; // weight 128
    const q4 = dequantised('q4_k', block(HALF_ONE, HALF_HALF, scales, codes));
    expect([q4[32], q4[128]]).toEqual([3 * 5 - 1, 0x12 * 7 - 0x31 / 2]);
    const high = new Uint8Array(32);
    high[0] = 0b0001_0010; // weights 32 and 128
    const q5 = dequantised('q5_k', block(HALF_ONE, HALF_HALF, scales, high, codes));
    expect([q5[32], q5[128]]).toEqual([3 * 21 - 1, 0x12 * 23 - 0x31 / 2]);
  });

  it('q6_k: signed scales, codes −32 … 31', () => {
    const low = new Uint8Array(128);
    low[1] = 0xf2; // weights 1 and 65
    const high = new Uint8Array(64);
    high[1] = 0b00_11_00_10; // weight 1: 2, weight 65: 3
    const scales = repeat(1, 16);
    scales[4] = 0xfe;
    const values = dequantised('q6_k', block(low, high, scales, HALF_ONE));
    expect([values[0], values[1], values[65]]).toEqual([-32, 2, -2 * 31]);
  });

  it('iq3_s: grid points with signs and odd scales', () => {
    const low = new Uint8Array(64);
    low[0] = 1; // weights 0 … 3: point 1 = (3, 1, 1, 1)
    low[9] = 0xff; // weights 36 … 39: point 511 with its ninth bit
    const signs = new Uint8Array(32);
    signs[0] = 0b0001;
    const values = dequantised('iq3_s', block(HALF_ONE, low, [0, 0b10, 0, 0, 0, 0, 0, 0], signs, [0x20, 0, 0, 0]));
    expect([...values.subarray(0, 4)]).toEqual([-3, 1, 1, 1]);
    expect([...values.subarray(36, 40)]).toEqual([5, 5, 75, 75]);
  });

  it('iq4_xs: the codebook with six-bit scales less 32', () => {
    const codes = repeat(0x88, 128);
    codes[16] = 0xf0; // weights 32 and 48, whose scale is 0x31 − 32
    const values = dequantised('iq4_xs', block(HALF_ONE, [0b1010_1110, 0xaa], [0x10, 0, 0, 0], codes));
    expect([values[0], values[32], values[48]]).toEqual([0, 17 * -127, 17 * 113]);
  });

  it('tq2_0: −1, 0, 1', () => {
    const codes = repeat(0b01_01_01_01, 64);
    codes[33] = 0b10_01_00_01; // weights 129, 161, 193, 225
    const values = dequantised('tq2_0', block(codes, HALF_TWO));
    expect([values[0], values[129], values[161], values[193], values[225]]).toEqual([0, 0, -2, 0, 2]);
  });
});
