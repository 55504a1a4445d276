import { describe, expect, it } from 'vitest';
import { bfloatToFloat, floatToHalf, halfToFloat, readHalf } from '../../src/tensor/float16.js';
import { seededRandom } from './random.js';

/** IEEE 754 binary16 by its definition. */
function definedValue(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * 2 ** -14 * (fraction / 1024) : sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

describe('float16', () => {
  it('has the value of every one of the 65,536 numbers, and converts each back', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = definedValue(bits);
      if (!Object.is(halfToFloat(bits), value)) expect(halfToFloat(bits), `0x${bits.toString(16)}`).toBe(value);
      const back = Number.isNaN(value) ? 0x7e00 : bits;
      if (floatToHalf(value) !== back) expect(floatToHalf(value), `0x${bits.toString(16)}`).toBe(back);
    }
  });

  it('rounds to the nearest, ties to even: subnormals, normals, and up to infinity', () => {
    for (let bits = 0; bits < 0x7c00; bits++) {
      const low = definedValue(bits);
      const high = bits === 0x7bff ? 65536 : definedValue(bits + 1);
      const middle = (low + high) / 2; // exact in float32
      const even = bits % 2 === 0 ? bits : bits + 1;
      const above = Math.fround(middle * (1 + 2 ** -23));
      const below = Math.fround(middle * (1 - 2 ** -23));
      const found = [below, middle, above, -middle].map(floatToHalf);
      const wanted = [bits, even, bits + 1, even | 0x8000];
      if (found.join() !== wanted.join()) expect(found, `0x${bits.toString(16)}`).toEqual(wanted);
    }
  });

  it('keeps what float32 keeps: a float64 argument is rounded to float32 first', () => {
    expect(floatToHalf(2 ** -25 + 2 ** -60)).toBe(0);
    expect(floatToHalf(2 ** -25 + 2 ** -48)).toBe(1);
  });

  it('gives infinities, tiny numbers and NaN a defined result', () => {
    expect(floatToHalf(1e30)).toBe(0x7c00);
    expect(floatToHalf(-65520)).toBe(0xfc00);
    expect(floatToHalf(65519.99)).toBe(0x7bff);
    expect(floatToHalf(1e-40)).toBe(0);
    expect(floatToHalf(-1e-40)).toBe(0x8000);
    expect(floatToHalf(Number.NaN)).toBe(0x7e00);
  });

  it('is read little-endian', () => {
    expect(readHalf(Uint8Array.of(9, 0x00, 0x3c), 1)).toBe(1);
  });
});

describe('bfloat16', () => {
  it('is the upper half of a float32', () => {
    const view = new DataView(new ArrayBuffer(4));
    const random = seededRandom(3);
    for (let i = 0; i < 2000; i++) {
      const bits = Math.floor(random() * 65536);
      view.setUint32(0, bits << 16);
      expect(bfloatToFloat(bits)).toBe(view.getFloat32(0));
    }
  });
});
