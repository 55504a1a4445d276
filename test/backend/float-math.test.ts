import { describe, expect, it } from 'vitest';
import { exp32, log32, roundToEven } from '../../src/backend/float-math.js';

const { fround } = Math;
const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** Distance from |x| to the next float32 above. */
function unitOf(x: number): number {
  float[0] = Math.abs(x);
  const low = float[0];
  word[0]! += 1;
  return float[0] - low;
}

function bitsOf(x: number): number {
  float[0] = x;
  return word[0]! >>> 0;
}

describe('exp32', () => {
  it('is within one unit in the last place over its whole range', () => {
    let worst = 0;
    for (let x = -87.33; x < 88.376; x += 0.00137) {
      const argument = fround(x);
      const exact = Math.exp(argument);
      worst = Math.max(worst, Math.abs(exp32(argument) - exact) / unitOf(exact));
    }
    expect(worst).toBeLessThan(1);
  });

  it('is 0 below, infinite above, and NaN for NaN', () => {
    expect(exp32(0)).toBe(1);
    expect(exp32(-0)).toBe(1);
    expect(exp32(fround(-87.33654))).toBeGreaterThan(0);
    expect(exp32(fround(-87.3366))).toBe(0);
    expect(exp32(-Infinity)).toBe(0);
    expect(exp32(fround(88.37626))).toBeLessThan(Infinity);
    expect(exp32(fround(88.3763))).toBe(Infinity);
    expect(exp32(Infinity)).toBe(Infinity);
    expect(exp32(NaN)).toBeNaN();
  });

  // Made by a float32 program in numpy, from the text of the definition.
  it('has these bits', () => {
    const samples = [-87.3, -25, -1, -0.1, 0.5, 1, 10.25, 88].map((x) => bitsOf(exp32(fround(x))));
    expect(samples).toEqual([
      0x0084c38b, 0x2d7451bd, 0x3ebc5ab2, 0x3f67a36d, 0x3fd3094c, 0x402df854, 0x46dcf516, 0x7ef882b7,
    ]);
  });
});

describe('log32', () => {
  it('is within one unit in the last place', () => {
    let worst = 0;
    const check = (x: number): void => {
      const argument = fround(x);
      const exact = Math.log(argument);
      if (exact !== 0) worst = Math.max(worst, Math.abs(log32(argument) - exact) / unitOf(exact));
    };
    for (let x = 1.2e-38; x < 3e38; x *= 1.00073) check(x);
    for (let x = 0.4; x < 2.5; x += 0.0000137) check(x);
    expect(worst).toBeLessThan(1);
  });

  it('is 0 at 1, and neither zero nor infinite at the ends of the uniform noise', () => {
    expect(log32(1)).toBe(0);
    expect(log32(1 - 2 ** -24)).toBe(-(2 ** -24));
    expect(log32(2 ** -24)).toBeCloseTo(-24 * Math.LN2, 5);
    expect(log32(2 ** -126)).toBeCloseTo(-126 * Math.LN2, 4);
  });

  // Made by a float32 program in numpy, from the text of the definition.
  it('has these bits', () => {
    const samples = [1e-30, 0.1, 0.7, 0.71, 0.99, 1.5, 3, 12345].map((x) => bitsOf(log32(fround(x))));
    expect(samples).toEqual([
      0xc28a27b5, 0xc0135d8e, 0xbeb69e1a, 0xbeaf5ae5, 0xbc24aa20, 0x3ecf991f, 0x3f8c9f54, 0x4116bc71,
    ]);
  });
});

describe('roundToEven', () => {
  it('takes ties to even and keeps what is not finite', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 0.49999999].map(roundToEven)).toEqual([0, 2, 2, 0, -2, -2, 126, 0]);
    expect([Infinity, -Infinity, NaN].map(roundToEven)).toEqual([Infinity, -Infinity, NaN]);
  });
});
