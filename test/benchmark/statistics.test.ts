import { expect, test } from 'vitest';
import { median, summarize, summarizeRatios } from '../../src/benchmark/statistics.js';

test('the median is the middle, or between the two in the middle', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([7])).toBe(7);
});

test('a summary has the range and the number of runs', () => {
  expect(summarize([5, 1, 9])).toEqual({ median: 5, min: 1, max: 9, runs: 3 });
  expect(() => summarize([])).toThrow('no measurements');
});

test('ratios are taken within a round, so that a slow round slows both', () => {
  // The second round ran at a tenth of the speed; the medians of both alone would say 2.
  expect(summarizeRatios([30, 3, 24], [10, 1, 12])).toEqual({ median: 3, min: 2, max: 3, runs: 3 });
  expect(() => summarizeRatios([1, 2], [1])).toThrow('only one was measured');
});
