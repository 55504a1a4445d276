import { describe, expect, it } from 'vitest';
import type { SamplingInputs, StepResult } from '../../src/backend/backend.js';
import { exp32, log32 } from '../../src/backend/float-math.js';
import { philox } from '../../src/backend/reference-philox.js';
import { sampleRows } from '../../src/backend/reference-sampling.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { seededNormal } from '../tensor/random.js';
import { samplingCases } from './sampling-cases.js';
import { csr, maskOf, type RecordOptions, samplingRecords } from './sampling-records.js';

/** Samples one row of logits. */
function sample(logits: readonly number[], options: RecordOptions, more: Partial<SamplingInputs> = {}): StepResult {
  const row = Float32Array.from(logits);
  return sampleRows({ sampling: samplingRecords(options), ...more }, Int32Array.of(41), row.length, () => row);
}

function token(logits: readonly number[], options: RecordOptions, more: Partial<SamplingInputs> = {}): number {
  return sample(logits, options, more).tokens[0]!;
}

/** Logits of these probabilities. */
const logitsOf = (...probabilities: number[]): number[] => probabilities.map((p) => Math.log(p));

/** How often each token is drawn over seeds 0 … draws − 1. */
function frequencies(logits: readonly number[], options: RecordOptions, draws: number): number[] {
  const row = Float32Array.from(logits);
  const records = samplingRecords(...Array.from({ length: draws }, (_, seedLow) => ({ ...options, seedLow })));
  const { tokens } = sampleRows({ sampling: records }, Int32Array.of(17), row.length, () => row);
  const counts = new Array<number>(logits.length).fill(0);
  for (const id of tokens) counts[id]!++;
  return counts;
}

const drawn = (counts: readonly number[]): number[] => counts.flatMap((count, id) => (count > 0 ? [id] : []));

describe('Philox4x32-10', () => {
  // Known answers published with Random123 (kat_vectors).
  it.each([
    [
      [0, 0, 0, 0, 0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [new Array(6).fill(0xffffffff), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('of %j is %j', (input, expected) => {
    const words = new Uint32Array(4);
    const [c0, c1, c2, c3, k0, k1] = input as number[];
    philox(words, c0!, c1!, c2!, c3!, k0!, k1!);
    expect([...words]).toEqual(expected);
  });
});

describe('noise', () => {
  const normal = seededNormal(5);
  const logits = Array.from({ length: 100 }, () => normal());

  it('gives the same token for the same seed, position and choice, wherever the row stands', () => {
    const options = { seedLow: 7, seedHigh: 9, choice: 2 };
    const alone = token(logits, options);
    const row = Float32Array.from(logits);
    const records = samplingRecords({ row: 1, temperature: 0.5 }, { row: 2, ...options }, { row: 0, seedLow: 3 });
    const { tokens } = sampleRows({ sampling: records }, Int32Array.of(5, 8, 41), 100, () => row);
    expect(tokens[1]).toBe(alone);
  });

  it('changes with each part of its key', () => {
    const row = Float32Array.from({ length: 50_000 }, () => 0);
    const of = (options: RecordOptions, position: number): number =>
      sampleRows({ sampling: samplingRecords(options) }, Int32Array.of(position), row.length, () => row).tokens[0]!;
    const tokens = [of({}, 0), of({ seedLow: 1 }, 0), of({ seedHigh: 1 }, 0), of({ choice: 1 }, 0), of({}, 1)];
    expect(new Set(tokens).size).toBe(5);
  });

  it('is −log(−log u), u from word id mod 4 of block id / 4, at the position of the sampled token', () => {
    const words = new Uint32Array(4);
    const values = logits.map((logit, id) => {
      philox(words, id >> 2, 42, 3, 0, 5, 6);
      const u = ((words[id % 4]! >>> 9) + 0.5) / 2 ** 23;
      return Math.fround(Math.fround(logit) - log32(-log32(u)));
    });
    const expected = values.indexOf(Math.max(...values));
    expect(token(logits, { seedLow: 5, seedHigh: 6, choice: 3 })).toBe(expected);
  });
});

describe('the distribution', () => {
  const normal = seededNormal(6);
  const logits = Array.from({ length: 12 }, () => 1.5 * normal());
  const cases: { options: RecordOptions; keep: (p: number[]) => boolean[] }[] = [
    { options: {}, keep: (p) => p.map(() => true) },
    { options: { temperature: 0.7 }, keep: (p) => p.map(() => true) },
    { options: { temperature: 2.5 }, keep: (p) => p.map(() => true) },
    { options: { topK: 4 }, keep: (p) => p.map((x) => [...p].sort((a, b) => b - a)[3]! <= x) },
    { options: { minP: 0.03 }, keep: (p) => p.map((x) => x >= 0.03 * Math.max(...p)) },
    { options: { topP: 0.8, temperature: 1.3 }, keep: (p) => nucleus(p, 0.8) },
  ];

  it.each(cases)('of $options is the softmax over the survivors (chi-square, p > 1e-6)', ({ options, keep }) => {
    const scaled = logits.map((logit) => Math.exp(logit / (options.temperature ?? 1)));
    const total = scaled.reduce((a, b) => a + b);
    const p = scaled.map((x) => x / total);
    const survivors = keep(p);
    const mass = p.reduce((sum, x, i) => sum + (survivors[i] ? x : 0), 0);
    const draws = 20_000;
    const counts = frequencies(logits, options, draws);
    let chiSquare = 0;
    counts.forEach((count, i) => {
      if (!survivors[i]) expect(count).toBe(0);
      else chiSquare += (count - (draws * p[i]!) / mass) ** 2 / ((draws * p[i]!) / mass);
    });
    expect(chiSquare).toBeLessThan(chiSquareLimit(survivors.filter(Boolean).length - 1));
  });

  /** The smallest set of most likely tokens whose probabilities reach `limit`. */
  function nucleus(p: readonly number[], limit: number): boolean[] {
    const order = p.map((_, i) => i).sort((a, b) => p[b]! - p[a]!);
    let sum = 0;
    const kept = order.filter((i) => {
      const keep = sum < limit;
      sum += p[i]!;
      return keep;
    });
    return p.map((_, i) => kept.includes(i));
  }

  /** The value a chi-square variable exceeds with probability 1e-6 (Wilson and Hilferty's approximation). */
  function chiSquareLimit(degrees: number): number {
    const z = 4.753424;
    return degrees * (1 - 2 / (9 * degrees) + z * Math.sqrt(2 / (9 * degrees))) ** 3;
  }
});

describe('filters', () => {
  const logits = logitsOf(0.1, 0.4, 0.05, 0.3, 0.15);

  it('top-k keeps the k most likely, equal ones by id', () => {
    expect(drawn(frequencies(logits, { topK: 2 }, 500))).toEqual([1, 3]);
    expect(drawn(frequencies([0, 1, 1, 1], { topK: 2 }, 500))).toEqual([1, 2]);
    expect(drawn(frequencies(logits, { topK: 100 }, 500))).toEqual([0, 1, 2, 3, 4]);
  });

  it('top-p keeps tokens until the ones before reach p', () => {
    expect(drawn(frequencies(logits, { topP: 0.69 }, 500))).toEqual([1, 3]);
    expect(drawn(frequencies(logits, { topP: 0.71 }, 500))).toEqual([1, 3, 4]);
    expect(drawn(frequencies(logits, { topP: 0.001 }, 50))).toEqual([1]);
  });

  it('top-p counts what top-k has left', () => {
    expect(drawn(frequencies(logits, { topK: 2, topP: 0.5 }, 500))).toEqual([1]); // 0.4 / 0.7 > 0.5
  });

  it('min-p keeps what is at least p times as likely as the most likely', () => {
    expect(drawn(frequencies(logits, { minP: 0.3 }, 500))).toEqual([1, 3, 4]);
    expect(drawn(frequencies(logits, { minP: 1 }, 50))).toEqual([1]);
  });

  it('typical-p prefers tokens whose surprise is near the entropy', () => {
    // Entropy 1.39; surprises 2.30, 0.92, 3.00, 1.20, 1.90: the order is 3, 1, 4, 0, 2.
    expect(drawn(frequencies(logits, { typicalP: 0.29 }, 500))).toEqual([3]);
    expect(drawn(frequencies(logits, { typicalP: 0.31 }, 500))).toEqual([1, 3]);
    expect(drawn(frequencies(logits, { typicalP: 0.71 }, 500))).toEqual([1, 3, 4]);
  });

  it('leave one token even if typical-p has removed all that min-p would keep', () => {
    expect(drawn(frequencies(logits, { typicalP: 0.29, minP: 1 }, 50))).toEqual([3]);
  });

  it('never let through what is 25 below the maximum after the division by temperature', () => {
    const row = [0, ...new Array(5000).fill(-12.6)];
    expect(drawn(frequencies(row, { temperature: 0.5 }, 20))).toEqual([0]);
  });
});

describe('temperature 0', () => {
  it('takes the highest logit, the lowest id of equal ones', () => {
    expect(token([1, 3, 2, 3], { temperature: 0 })).toBe(1);
  });

  it('is also what remains when quotients overflow', () => {
    expect(token([1, 3, 2], { temperature: 1e-38 })).toBe(1);
    expect(token([-1, -3, -2], { temperature: 1e-38 }, { mask: maskOf(3, [1, 2]) })).toBe(2);
  });

  it('counts NaN as −Infinity and gives −1 when nothing is allowed', () => {
    expect(token([NaN, -5, NaN], { temperature: 0 })).toBe(1);
    expect(token([NaN, -Infinity], { temperature: 0 })).toBe(-1);
    expect(token([NaN, -Infinity], { temperature: 1 })).toBe(-1);
    expect(token([1, 2], { temperature: 1 }, { mask: maskOf(2, []) })).toBe(-1);
  });
});

describe('bias, mask and penalties', () => {
  const greedy = { temperature: 0 };

  it('bias adds to logits; −Infinity bans', () => {
    expect(token([1, 2, 3], greedy, { bias: csr([[0, 2.5]]) })).toBe(0);
    expect(token([1, 2, 3], greedy, { bias: csr([[2, -Infinity]]) })).toBe(1);
    const bans = csr([
      [2, -Infinity],
      [1, 5],
      [1, -Infinity],
    ]);
    expect(token([1, 2, 3], { temperature: 5 }, { bias: bans })).toBe(0);
  });

  it('masks count bits across words', () => {
    const logits = Array.from({ length: 70 }, (_, id) => id);
    expect(token(logits, greedy, { mask: maskOf(70, [3, 31, 32, 63]) })).toBe(63);
    expect(token(logits, { temperature: 9 }, { mask: maskOf(70, [31]) })).toBe(31);
  });

  it('the repetition penalty divides positive and multiplies negative logits once per distinct token', () => {
    const history = csr([1, 1, 1]);
    expect(token([1.1, 2], { ...greedy, repetitionPenalty: 1.9 }, { history })).toBe(0);
    expect(token([1, 2], { ...greedy, repetitionPenalty: 1.9 }, { history })).toBe(1);
    expect(token([-1.5, -1], { ...greedy, repetitionPenalty: 1.4 }, { history })).toBe(1);
    expect(token([-1.5, -1], { ...greedy, repetitionPenalty: 1.6 }, { history })).toBe(0);
  });

  it('presence counts generated tokens once, frequency each time, the prompt never', () => {
    const history = csr([0, 0, 1, 1, 1]); // two tokens of prompt
    const penalty = (options: RecordOptions, margin: number): number =>
      token([0, margin, -100], { ...greedy, promptLength: 2, ...options }, { history });
    expect(penalty({ presencePenalty: 1 }, 1.01)).toBe(1);
    expect(penalty({ presencePenalty: 1 }, 0.99)).toBe(0);
    expect(penalty({ frequencyPenalty: 1 }, 3.01)).toBe(1);
    expect(penalty({ frequencyPenalty: 1 }, 2.99)).toBe(0);
    expect(penalty({ frequencyPenalty: 1, presencePenalty: 0.5 }, 3.49)).toBe(0);
  });

  it('rows use their own entries', () => {
    const row = Float32Array.of(1, 2, 3);
    const { tokens } = sampleRows(
      {
        sampling: samplingRecords(greedy, greedy, greedy),
        bias: csr([], [[2, -9]], [[0, 9]]),
        mask: Int32Array.of(0b011, 0b111, 0b111),
      },
      Int32Array.of(0),
      3,
      () => row,
    );
    expect([...tokens]).toEqual([1, 1, 0]);
  });
});

describe('log-probabilities', () => {
  const normal = seededNormal(8);
  const logits = Float32Array.from({ length: 301 }, () => 3 * normal());

  it('are those of the unmodified logits, the most likely first', () => {
    const options = { flags: SAMPLE | LOGPROBS, numTop: 4, temperature: 0 };
    const result = sample([...logits], options, { bias: csr([[17, 100]]) });
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!);
    expect(result.tokens[0]).toBe(17);
    expect(result.logprobs[0]).toBeCloseTo(logits[17]! - Math.log(total), 5);
    expect([...result.topIds]).toEqual(order.slice(0, 4));
    [...result.topLogprobs].forEach((logprob, rank) => {
      expect(logprob).toBeCloseTo(logits[order[rank]!]! - Math.log(total), 5);
    });
  });

  it('have exact bits: float32 steps, a float64 sum in 16 lanes', () => {
    const max = Math.max(...logits);
    const lanes = new Array<number>(16).fill(0);
    logits.forEach((logit, id) => {
      lanes[id % 16]! += exp32(Math.fround(logit - max));
    });
    const pairs = (sums: number[]): number[] => sums.slice(sums.length / 2).map((value, i) => sums[i]! + value);
    const [sum] = pairs(pairs(pairs(pairs(lanes))));
    const expected = Math.fround(Math.fround(logits[5]! - max) - log32(Math.fround(sum!)));
    const result = sample([...logits], { flags: SAMPLE | LOGPROBS, temperature: 0 }, { mask: maskOf(301, [5]) });
    expect(result.logprobs[0]).toBe(expected);
  });

  it('leave −1 where a row asked for fewer alternatives, and equal logits in order of id', () => {
    const row = Float32Array.of(1, 5, 5, NaN);
    const records = samplingRecords(
      { flags: LOGPROBS, numTop: 1 },
      { flags: SAMPLE, numTop: 9 },
      { flags: SAMPLE | LOGPROBS, numTop: 3, temperature: 0 },
    );
    const result = sampleRows({ sampling: records }, Int32Array.of(0), 4, () => row);
    expect([...result.tokens]).toEqual([-1, 1, 1]);
    expect([...result.topIds]).toEqual([1, -1, -1, -1, -1, -1, 1, 2, 0]);
    expect(result.logprobs[0]).toBeNaN();
    expect(result.logprobs[1]).toBeNaN();
    expect(result.logprobs[2]).toBeCloseTo(Math.log(0.5), 1);
  });

  it('rank all tokens when more alternatives are asked for than there are', () => {
    const result = sample([1, NaN, 2], { flags: LOGPROBS, numTop: 5 });
    expect([...result.topIds]).toEqual([2, 0, 1, -1, -1]);
    expect(result.topLogprobs[2]).toBe(-Infinity);
  });
});

describe.each(samplingCases())('$name', ({ vocabSize, logits, positions, inputs }) => {
  const sampled = sampleRows(inputs, positions, vocabSize, (_, row) =>
    logits.subarray(row * vocabSize, (row + 1) * vocabSize),
  );

  it('gives tokens that exist and may be drawn, with log-probabilities in order', () => {
    const maskWords = Math.ceil(vocabSize / 32);
    sampled.tokens.forEach((id, row) => {
      const words = inputs.mask?.subarray(row * maskWords, (row + 1) * maskWords);
      expect(id).toBeGreaterThanOrEqual(-1);
      expect(id).toBeLessThan(vocabSize);
      if (id < 0) return;
      expect(words === undefined || (words[id >> 5]! >>> (id & 31)) & 1).toBeTruthy();
      expect(sampled.logprobs[row]).toBeLessThanOrEqual(1e-6);
    });
    const numTop = sampled.topIds.length / sampled.tokens.length;
    sampled.topLogprobs.forEach((logprob, i) => {
      if (i % numTop > 0 && sampled.topIds[i]! >= 0) expect(logprob).toBeLessThanOrEqual(sampled.topLogprobs[i - 1]!);
    });
  });
});
