import { describe, expect, it } from 'vitest';
import { Moments } from '../../src/evaluation/moments.js';
import { percentile } from '../../src/evaluation/percentile.js';

function momentsOf(...values: number[]): Moments {
  const moments = new Moments();
  for (const value of values) moments.push(value);
  return moments;
}

describe('moments', () => {
  it('are mean and standard error', () => {
    const moments = momentsOf(2, 4, 4, 4, 5, 5, 7, 9);
    expect(moments.mean).toBe(5);
    expect(moments.standardError).toBeCloseTo(Math.sqrt(32 / 7 / 8), 15);
  });

  it('know no error of fewer than two numbers, and no mean of none', () => {
    expect(momentsOf(3).standardError).toBeNull();
    expect(momentsOf(3).mean).toBe(3);
    expect(momentsOf().mean).toBeNaN();
  });

  it('are infinite if one number is', () => {
    const moments = momentsOf(1, Infinity, 2);
    expect(moments.mean).toBe(Infinity);
    expect(moments.standardError).toBeNull();
    expect([moments.count, moments.numInfinite]).toEqual([3, 1]);
  });

  it('go on from JSON to the last bit', () => {
    const values = Array.from({ length: 40 }, (_, i) => Math.sin(i) * 10 ** (i % 7));
    const restored = Moments.restore(JSON.parse(JSON.stringify(momentsOf(...values.slice(0, 17), Infinity).save())))!;
    for (const value of values.slice(17)) restored.push(value);
    expect(restored.save()).toEqual(momentsOf(...values.slice(0, 17), Infinity, ...values.slice(17)).save());
  });

  it.each([
    [null],
    [[1, 2, 3]],
    [[1, 2, 3, 'x']],
    [[1.5, 0, 0, 0]],
    [[-1, 0, 0, 0]],
    [[2, 0, -1, 0]],
    [[1, null, 0, 0]],
  ])('are not restored from %j', (saved) => expect(Moments.restore(saved)).toBeNull());
});

describe('percentiles', () => {
  const values = Float32Array.of(1, 2, 3, 4, 10);

  it.each([
    [0, 1],
    [50, 3],
    [75, 4],
    [90, 7.6],
    [100, 10],
  ])('%d is %d, as NumPy interpolates', (percent, expected) => {
    expect(percentile(values, percent)).toBeCloseTo(expected, 12);
  });

  it('of one number are that number', () => {
    expect(percentile(Float32Array.of(7), 99.9)).toBe(7);
  });

  it('may be infinite', () => {
    const some = Float32Array.of(1, 2, Infinity, Infinity);
    expect(percentile(some, 20)).toBeCloseTo(1.6, 6);
    expect(percentile(some, 50)).toBe(Infinity);
    expect(percentile(some, 90)).toBe(Infinity);
  });
});
