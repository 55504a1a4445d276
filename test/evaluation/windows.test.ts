import { describe, expect, it } from 'vitest';
import { WindowPlan } from '../../src/evaluation/windows.js';

function windowsOf(plan: WindowPlan) {
  return Array.from({ length: plan.numWindows }, (_, i) => Object.values(plan.at(i)));
}

describe('windows', () => {
  it('begin with the token of the model, where it has one, and then score every token of the text', () => {
    // start, scoredFrom, end
    expect(windowsOf(new WindowPlan(7, true, 4, {}))).toEqual([
      [0, 0, 3],
      [3, 3, 6],
      [6, 6, 7],
    ]);
  });

  it('overlap by one token elsewhere, and score all but the first token of the text', () => {
    expect(windowsOf(new WindowPlan(8, false, 4, {}))).toEqual([
      [0, 1, 4],
      [3, 4, 7],
      [6, 7, 8],
    ]);
  });

  it('give more context with a smaller stride, and still score each token once', () => {
    expect(windowsOf(new WindowPlan(8, true, 9, { window: 5, stride: 2 }))).toEqual([
      [0, 0, 4],
      [2, 4, 6],
      [4, 6, 8],
    ]);
  });

  it('score every token exactly once, whatever the sizes', () => {
    for (const hasBos of [true, false]) {
      for (let numTokens = hasBos ? 1 : 2; numTokens < 20; numTokens++) {
        for (let window = 2; window < 9; window++) {
          for (let stride = 1; stride < window; stride++) {
            const plan = new WindowPlan(numTokens, hasBos, 8, { window, stride });
            const scored: number[] = [];
            for (let i = 0; i < plan.numWindows; i++) {
              const { start, scoredFrom, end } = plan.at(i);
              expect(end - start + Number(hasBos)).toBeLessThanOrEqual(window);
              expect(scoredFrom).toBeGreaterThanOrEqual(hasBos ? start : start + 1);
              for (let token = scoredFrom; token < end; token++) scored.push(token);
              expect(plan.numScored(i + 1)).toBe(scored.length);
            }
            const first = hasBos ? 0 : 1;
            expect(scored).toEqual(Array.from({ length: numTokens - first }, (_, i) => first + i));
          }
        }
      }
    }
  });

  it('are 512 tokens, or the context', () => {
    expect(new WindowPlan(9, true, 4096, {}).window).toBe(512);
    expect(new WindowPlan(9, true, 4096, {}).stride).toBe(511);
    expect(new WindowPlan(9, true, 100, {}).window).toBe(100);
  });

  it('refuse sizes that cannot be', () => {
    for (const options of [{ window: 1 }, { window: 101 }, { window: 2.5 }, { stride: 0 }, { window: 8, stride: 8 }]) {
      expect(() => new WindowPlan(9, true, 100, options)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
  });

  it('refuse a text without a token to score', () => {
    const error = expect.objectContaining({ code: 'TEXT_TOO_SHORT' });
    expect(() => new WindowPlan(0, true, 100, {})).toThrow(error);
    expect(() => new WindowPlan(1, false, 100, {})).toThrow(error);
  });
});
