import { describe, expect, it } from 'vitest';
import { compareRows, problemOf, scoreRow } from '../../src/evaluation/log-softmax.js';
import { seededRandom } from '../tensor/random.js';

/** Logits whose softmax are these probabilities. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, (p) => Math.log(p));

/** By the definition, with Math.exp. */
function logSoftmax(logits: Float32Array): number[] {
  const max = Math.max(...logits);
  const sum = logits.reduce((total, value) => total + Math.exp(value - max), 0);
  return Array.from(logits, (value) => value - max - Math.log(sum));
}

describe('the score of a row', () => {
  it('is the log-probability of the token, and the likeliest one', () => {
    const row = logitsOf(0.5, 0.25, 0.125, 0.125);
    expect(scoreRow(row, 0).logprob).toBeCloseTo(-Math.LN2, 7);
    expect(scoreRow(row, 3).logprob).toBeCloseTo(-3 * Math.LN2, 7);
    expect(scoreRow(row, 3).top1).toBe(0);
    expect(scoreRow(Float32Array.of(1, 7, 7, 2), 0).top1).toBe(1);
  });

  it('does not depend on what is added to all logits', () => {
    const row = Float32Array.of(0, 1, 2, 3);
    const high = row.map((value) => value + 4096);
    expect(scoreRow(high, 1).logprob).toBe(scoreRow(row, 1).logprob);
  });

  it('is within 1e-12 of the definition, for rows flat and steep', () => {
    const random = seededRandom(3);
    for (const spread of [0.01, 1, 10, 100, 1000]) {
      const row = Float32Array.from({ length: 5000 }, () => (random() - 0.5) * spread);
      const expected = logSoftmax(row);
      for (let id = 0; id < row.length; id += 499) {
        expect(Math.abs(scoreRow(row, id).logprob - expected[id]!)).toBeLessThan(1e-12);
      }
    }
  });

  it('gives impossible tokens probability 0 and leaves the others as they are', () => {
    const row = Float32Array.of(-Infinity, 0, 0, -Infinity);
    expect(scoreRow(row, 0).logprob).toBe(-Infinity);
    expect(scoreRow(row, 1).logprob).toBeCloseTo(-Math.LN2, 15);
    expect(problemOf(row)).toBeNull();
  });

  it.each([
    [[0, Number.NaN, 1, 2], 'the logit of token 1 is NaN'],
    [[Number.NaN, 0, 1, 2], 'the logit of token 0 is NaN'],
    [[0, 1, Infinity, 2], 'the logit of token 2 is Infinity'],
    [[-Infinity, -Infinity, -Infinity, -Infinity], 'every logit is -Infinity'],
  ])('is NaN for %j, which is no distribution', (values, problem) => {
    const row = Float32Array.from(values);
    expect(scoreRow(row, 0).logprob).toBeNaN();
    expect(problemOf(row)).toBe(problem);
    const sound = Float32Array.of(1, 2, 3, 4);
    expect(compareRows(row, sound, 0).kl).toBeNaN();
    expect(compareRows(sound, row, 0).kl).toBeNaN();
  });
});

describe('the divergence of two rows', () => {
  it('is that of the definition, reference first', () => {
    const model = logitsOf(0.25, 0.25, 0.25, 0.25);
    const reference = logitsOf(0.5, 0.25, 0.125, 0.125);
    // 0.5 ln 2 + 0.25 ln 1 + 2 · 0.125 ln 0.5
    expect(compareRows(model, reference, 0).kl).toBeCloseTo(0.25 * Math.LN2, 7);
    // 0.25 (ln 0.5 + ln 1 + 2 ln 2)
    expect(compareRows(reference, model, 0).kl).toBeCloseTo(0.25 * Math.LN2, 7);
    const other = logitsOf(0.7, 0.1, 0.1, 0.1);
    const byDefinition = 0.5 * Math.log(0.5 / 0.7) + 0.25 * Math.log(2.5) + 0.25 * Math.log(1.25);
    expect(compareRows(other, reference, 0).kl).toBeCloseTo(byDefinition, 7);
  });

  it('is exactly 0 for equal rows, also with impossible tokens', () => {
    const random = seededRandom(5);
    const row = Float32Array.from({ length: 1000 }, (_, id) => (id % 7 === 0 ? -Infinity : random() * 30));
    const { kl, model, reference } = compareRows(row, row.slice(), 1);
    expect(kl).toBe(0);
    expect(model).toEqual(reference);
    expect(
      compareRows(
        row.map((value) => value + 64),
        row,
        1,
      ).kl,
    ).toBeLessThan(1e-10);
  });

  it('is never negative, and infinite if the model rules out what the reference allows', () => {
    const random = seededRandom(6);
    for (let i = 0; i < 200; i++) {
      const row = Float32Array.from({ length: 50 }, () => random() * 5);
      const near = row.map((value) => value + random() * 1e-6);
      expect(compareRows(near, row, 0).kl).toBeGreaterThanOrEqual(0);
    }
    const never = Float32Array.of(-Infinity, 0, 0, 0);
    const even = Float32Array.of(0, 0, 0, 0);
    expect(compareRows(never, even, 1).kl).toBe(Infinity);
    expect(compareRows(even, never, 1).kl).toBeCloseTo(Math.log(4 / 3), 15);
  });

  it('scores both models as scoreRow does', () => {
    const [a, b] = [Float32Array.of(1, 5, 2, 0), Float32Array.of(3, 1, 2, 0.5)];
    const { model, reference } = compareRows(a, b, 2);
    expect(model).toEqual(scoreRow(a, 2));
    expect(reference).toEqual(scoreRow(b, 2));
  });
});
