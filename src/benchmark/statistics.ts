import { invariant } from '../base/errors.js';

/** What a row of a report says about repeated measurements. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Measurements. */
  readonly runs: number;
}

export function summarize(samples: readonly number[]): Summary {
  invariant(samples.length > 0, 'a summary of no measurements');
  return { median: median(samples), min: Math.min(...samples), max: Math.max(...samples), runs: samples.length };
}

/** The middle value, or the mean of the two middle ones. */
export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * How many times faster the first is: a ratio for each round, in which both were measured one after the other, so that
 * what slows a whole round down (another program, heat) slows both.
 */
export function summarizeRatios(first: readonly number[], second: readonly number[]): Summary {
  invariant(first.length === second.length, 'rounds in which only one was measured');
  return summarize(first.map((rate, round) => rate / second[round]!));
}
