import { randomInt } from 'node:crypto';
import {
  LOGPROBS,
  MAX_TOP_LOGPROBS,
  SAMPLE,
  SAMPLING_WORDS,
  type SamplingField,
  samplingFields,
  samplingIndex,
} from '../backend/sampling.js';
import { EngineError } from '../base/errors.js';

/** How a request's tokens are chosen. What each option does to the logits is defined in backend/reference-sampling.ts. */
export interface SamplingOptions {
  /** 0 is greedy; up to 100. Default 0.8. */
  readonly temperature?: number | undefined;
  /** Keep the k most likely tokens; 0 is off. Default 40. */
  readonly topK?: number | undefined;
  /** Keep the smallest set of tokens with this much probability, in (0, 1]; 1 is off. Default 0.95. */
  readonly topP?: number | undefined;
  /** Keep tokens at least this fraction as likely as the most likely one, in [0, 1]; 0 is off. Default 0.05. */
  readonly minP?: number | undefined;
  /** Keep the most typical tokens with this much probability (arXiv 2202.00666), in (0, 1]; 1 is off. Default 1. */
  readonly typicalP?: number | undefined;
  /** Divides (or multiplies, if negative) the logits of tokens seen in prompt or answer, in (0, 100]; 1 is off. Default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** Subtracted once from the logits of generated tokens, in [−100, 100]. Default 0. */
  readonly presencePenalty?: number | undefined;
  /** Subtracted per occurrence from the logits of generated tokens, in [−100, 100]. Default 0. */
  readonly frequencyPenalty?: number | undefined;
  /** Added to the logits of these tokens: id → bias in [−100, 100], or −Infinity to ban. At most 4,096 entries. */
  readonly logitBias?: Readonly<Record<number, number>> | undefined;
  /** 0 … 2⁵³ − 1. The same seed and request give the same tokens. Default: random. */
  readonly seed?: number | undefined;
  /** Report log-probabilities, with this many alternatives (0 … 20) a token. Default: none. */
  readonly logprobs?: number | undefined;
}

/** Validated options with every default filled in. */
export interface ResolvedSampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly typicalP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly bias: { readonly ids: Int32Array; readonly values: Float32Array } | null;
  readonly seed: number;
  /** Alternatives per token, or null for no log-probabilities at all. */
  readonly logprobs: number | null;
}

const MAX_BIAS_ENTRIES = 4096;

/** Throws OPTION_INVALID for the first option out of its range, a bias on an unknown token among them. */
export function resolveSampling(options: SamplingOptions, vocabSize: number): ResolvedSampling {
  return Object.freeze({
    temperature: number('temperature', options.temperature, 0.8, 0, 100),
    topK: integer('topK', options.topK, 40, 0, 2 ** 31 - 1),
    topP: fraction('topP', options.topP, 0.95),
    minP: number('minP', options.minP, 0.05, 0, 1),
    typicalP: fraction('typicalP', options.typicalP, 1),
    repetitionPenalty: number('repetitionPenalty', options.repetitionPenalty, 1, 0.01, 100),
    presencePenalty: number('presencePenalty', options.presencePenalty, 0, -100, 100),
    frequencyPenalty: number('frequencyPenalty', options.frequencyPenalty, 0, -100, 100),
    bias: resolveBias(options.logitBias, vocabSize),
    seed: integer('seed', options.seed, null, 0, Number.MAX_SAFE_INTEGER) ?? randomInt(2 ** 48 - 1),
    logprobs: integer('logprobs', options.logprobs, null, 0, MAX_TOP_LOGPROBS),
  });
}

function number(option: string, value: number | undefined, fallback: number, min: number, max: number): number {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value >= min && value <= max) return value; // NaN fails both
  throw new EngineError('OPTION_INVALID', { option, value, expected: `a number from ${min} to ${max}` });
}

/** A number in (0, 1]: the kept set is never empty. */
function fraction(option: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value > 0 && value <= 1) return value;
  throw new EngineError('OPTION_INVALID', { option, value, expected: 'a number above 0 and up to 1' });
}

function integer<F extends number | null>(
  option: string,
  value: number | undefined,
  fallback: F,
  min: number,
  max: number,
): number | F {
  if (value === undefined) return fallback;
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new EngineError('OPTION_INVALID', { option, value, expected: `a whole number from ${min} to ${max}` });
}

function resolveBias(bias: SamplingOptions['logitBias'], vocabSize: number): ResolvedSampling['bias'] {
  const entries = Object.entries(bias ?? {});
  if (entries.length === 0) return null;
  if (entries.length > MAX_BIAS_ENTRIES) {
    const expected = `at most ${MAX_BIAS_ENTRIES} entries`;
    throw new EngineError('OPTION_INVALID', { option: 'logitBias', value: `${entries.length} entries`, expected });
  }
  for (const [key, value] of entries) {
    // '' and '1e1' are numbers too, for Number.
    if (!/^\d+$/.test(key) || Number(key) >= vocabSize) {
      const expected = `ids of tokens from 0 to ${vocabSize - 1} as keys`;
      throw new EngineError('OPTION_INVALID', { option: 'logitBias', value: key, expected });
    }
    if (value !== -Infinity) number(`logitBias[${key}]`, value, 0, -100, 100);
  }
  return {
    ids: Int32Array.from(entries, ([key]) => Number(key)),
    values: Float32Array.from(entries, ([, value]) => value),
  };
}

/** Whether penalties need the row's history. */
export function usesHistory(sampling: ResolvedSampling): boolean {
  return sampling.repetitionPenalty !== 1 || sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0;
}

/**
 * The sampling record of a sequence's rows [SAMPLING_WORDS], except for their row. Here alone options become words.
 * `promptLength` is the number of history entries that belong to the prompt.
 */
export function samplingRecord(sampling: ResolvedSampling, choice: number, promptLength: number): Int32Array {
  return record({
    choice,
    seedLow: sampling.seed | 0,
    seedHigh: Math.floor(sampling.seed / 2 ** 32),
    flags: sampling.logprobs === null ? SAMPLE : SAMPLE | LOGPROBS,
    temperature: sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    minP: sampling.minP,
    typicalP: sampling.typicalP,
    repetitionPenalty: sampling.repetitionPenalty,
    presencePenalty: sampling.presencePenalty,
    frequencyPenalty: sampling.frequencyPenalty,
    promptLength,
    numTop: sampling.logprobs ?? 0,
  });
}

/** The record of rows that nothing is sampled from. */
export function unsampledRecord(): Int32Array {
  return record({ topP: 1, typicalP: 1, repetitionPenalty: 1 });
}

function record(fields: Partial<Record<SamplingField, number>>): Int32Array {
  const words = new Int32Array(SAMPLING_WORDS);
  const floats = new Float32Array(words.buffer);
  for (const [field, value] of Object.entries(fields) as [SamplingField, number][]) {
    (samplingFields[field] === 'f32' ? floats : words)[samplingIndex[field]] = value;
  }
  return words;
}
