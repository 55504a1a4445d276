import type { RopeTable } from '../backend/plan.js';

/** Rotary position embedding (arXiv 2104.09864) and how it was stretched to longer contexts. */
export interface RopeConfig {
  readonly ropeTheta: number;
  /** Values of each head that are rotated, the first ones; even. */
  readonly rotaryDim: number;
  readonly scaling: RopeScaling;
  /** Factor on cos and sin; 1 except for YaRN. */
  readonly attentionFactor: number;
}

export type RopeScaling =
  | { readonly type: 'default' }
  /** All positions divided by `factor` (arXiv 2306.15595). */
  | { readonly type: 'linear'; readonly factor: number }
  /** Long wavelengths slowed down by `factor`, short ones kept (Llama 3.1, arXiv 2407.21783). */
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      /** Tokens. */
      readonly originalContextLength: number;
    }
  /** The same idea by number of rotations within the original context (arXiv 2309.00071). */
  | {
      readonly type: 'yarn';
      readonly factor: number;
      /** Rotations from which on a pair is kept, and up to which it is slowed down. */
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Whether the ends of the ramp between them are rounded outwards to whole pairs. */
      readonly truncate: boolean;
      readonly originalContextLength: number;
    };

/**
 * The plan's table, in double precision. `frequencyFactors` divide the frequencies before any scaling, one per pair:
 * llama.cpp writes Llama 3.1's scaling as such a tensor, rope_freqs.weight.
 */
export function ropeTable(config: RopeConfig, frequencyFactors: ArrayLike<number> | null): RopeTable {
  const { ropeTheta, rotaryDim, scaling } = config;
  const scale = scalingFunction(scaling, ropeTheta, rotaryDim);
  const inverseFrequencies = Array.from({ length: rotaryDim / 2 }, (_, i) =>
    scale(ropeTheta ** ((-2 * i) / rotaryDim) / (frequencyFactors?.[i] ?? 1), i),
  );
  return { inverseFrequencies, magnitude: config.attentionFactor };
}

/** The scaled frequency of pair i from its unscaled one. */
type ScaleFrequency = (frequency: number, i: number) => number;

function scalingFunction(scaling: RopeScaling, ropeTheta: number, rotaryDim: number): ScaleFrequency {
  switch (scaling.type) {
    case 'default':
      return (frequency) => frequency;
    case 'linear':
      return (frequency) => frequency / scaling.factor;
    case 'llama3':
      return (frequency) => llama3Frequency(frequency, scaling);
    case 'yarn': {
      const slowed = yarnRamp(scaling, ropeTheta, rotaryDim);
      return (frequency, i) => (frequency / scaling.factor) * slowed(i) + frequency * (1 - slowed(i));
    }
  }
}

function llama3Frequency(frequency: number, scaling: RopeScaling & { type: 'llama3' }): number {
  const { factor, lowFreqFactor, highFreqFactor, originalContextLength } = scaling;
  const rotations = (originalContextLength * frequency) / (2 * Math.PI); // within the original context
  if (rotations < lowFreqFactor) return frequency / factor;
  if (rotations > highFreqFactor) return frequency;
  const kept = (rotations - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return (1 - kept) * (frequency / factor) + kept * frequency;
}

/** Share of the slowed-down frequency in pair i, 0 … 1. */
function yarnRamp(scaling: RopeScaling & { type: 'yarn' }, ropeTheta: number, rotaryDim: number) {
  // The pair, as a real number, that makes this many rotations within the original context.
  const pairOf = (rotations: number) =>
    (rotaryDim * Math.log(scaling.originalContextLength / (rotations * 2 * Math.PI))) / (2 * Math.log(ropeTheta));
  let first = pairOf(scaling.betaFast);
  let last = pairOf(scaling.betaSlow);
  if (scaling.truncate) [first, last] = [Math.floor(first), Math.ceil(last)];
  first = Math.max(first, 0);
  last = Math.min(last, rotaryDim - 1);
  const width = last === first ? 0.001 : last - first;
  return (i: number) => Math.min(Math.max((i - first) / width, 0), 1);
}

/** YaRN's attention factor: 0.1 · mscale · ln(factor) + 1, equation 22 of the paper for mscale = 1. */
export function yarnAttentionFactor(factor: number, mscale = 1): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}
