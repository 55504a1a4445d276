import { describe, expect, it } from 'vitest';
import { LOGPROBS, SAMPLE, samplingIndex } from '../../src/backend/sampling.js';
import {
  resolveSampling,
  type SamplingOptions,
  samplingRecord,
  unsampledRecord,
  usesHistory,
} from '../../src/engine/sampler.js';

const refused: [SamplingOptions, string][] = [
  [{ temperature: -0.1 }, 'temperature is -0.1'],
  [{ temperature: Number.NaN }, 'temperature is NaN'],
  [{ temperature: Number.POSITIVE_INFINITY }, 'temperature is Infinity'],
  [{ topK: 1.5 }, 'topK is 1.5'],
  [{ topK: -1 }, 'topK is -1'],
  [{ topP: 0 }, 'topP is 0'],
  [{ topP: 1.01 }, 'topP is 1.01'],
  [{ minP: 2 }, 'minP is 2'],
  [{ typicalP: 0 }, 'typicalP is 0'],
  [{ repetitionPenalty: 0 }, 'repetitionPenalty is 0'],
  [{ presencePenalty: 1e9 }, 'presencePenalty is 1000000000'],
  [{ seed: -1 }, 'seed is -1'],
  [{ seed: 2 ** 60 }, 'seed is'],
  [{ logprobs: 21 }, 'logprobs is 21'],
  [{ logitBias: { 3: 101 } }, 'logitBias[3] is 101'],
  [{ logitBias: { 100: 1 } }, 'logitBias is "100"; expected ids of tokens'],
  [{ logitBias: JSON.parse('{"":1}') }, 'logitBias is ""'],
  [{ logitBias: JSON.parse('{"1e1":1}') }, 'logitBias is "1e1"'],
];

describe('sampling options', () => {
  it.each(refused)('%j is refused with the value in the message', (options, message) => {
    expect(() => resolveSampling(options, 100)).toThrow(message);
  });

  it('fill in the documented defaults', () => {
    const { seed, ...rest } = resolveSampling({}, 100);
    expect(Number.isSafeInteger(seed)).toBe(true);
    expect(rest).toEqual({
      temperature: 0.8,
      topK: 40,
      topP: 0.95,
      minP: 0.05,
      typicalP: 1,
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      bias: null,
      logprobs: null,
    });
  });

  it('need the history only for penalties', () => {
    expect(usesHistory(resolveSampling({}, 100))).toBe(false);
    expect(usesHistory(resolveSampling({ frequencyPenalty: 0.1 }, 100))).toBe(true);
  });
});

describe('sampling records', () => {
  it('hold 64-bit seeds and bit-cast floats', () => {
    const record = samplingRecord(resolveSampling({ seed: 2 ** 40 + 5, temperature: 0.5, logprobs: 3 }, 100), 2, 11);
    const word = (field: keyof typeof samplingIndex) => record[samplingIndex[field]]!;
    expect([word('choice'), word('promptLength'), word('numTop')]).toEqual([2, 11, 3]);
    expect([word('seedLow'), word('seedHigh')]).toEqual([5, 256]);
    expect(word('flags')).toBe(SAMPLE | LOGPROBS);
    expect(new Float32Array(Int32Array.of(word('temperature')).buffer)[0]).toBe(0.5);
    expect(unsampledRecord()[samplingIndex.flags]).toBe(0);
  });
});
