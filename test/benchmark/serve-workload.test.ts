import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { poissonArrivals, Random, randomTokens } from '../../src/benchmark/serve/random.js';
import { readTrace } from '../../src/benchmark/serve/trace.js';
import { syntheticWorkload, traceWorkload } from '../../src/benchmark/serve/workload.js';
import { expectEngineError } from '../formats/engine-error.js';
import { itWithData } from '../shared-data.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-serve-workload-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** Tokens with which two prompts begin alike. */
function shared(a: readonly number[], b: readonly number[]): number {
  const different = a.findIndex((id, i) => id !== b[i]);
  return different < 0 ? a.length : different;
}

describe('random numbers', () => {
  test('of Poisson arrivals have the rate and the spread of an exponential', () => {
    const times = poissonArrivals(50, new Random(7));
    const arrivals = Array.from({ length: 20_001 }, () => times.next().value);
    const gaps = arrivals.slice(1).map((at, i) => at - arrivals[i]!);
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const deviation = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length);
    expect(arrivals[0]).toBe(0);
    expect(mean).toBeGreaterThan(19.5); // 20 ms; four deviations of the mean are 0.57
    expect(mean).toBeLessThan(20.5);
    expect(deviation / mean).toBeCloseTo(1, 1);
    expect(gaps.filter((gap) => gap > 20).length / gaps.length).toBeCloseTo(Math.exp(-1), 1);
  });

  test('are the same for the same seed, and different for every stream', () => {
    const tokens = (...numbers: [number, ...number[]]) => randomTokens(8, 32_000, new Random(...numbers)).join();
    expect(tokens(1, 2, 3)).toBe(tokens(1, 2, 3));
    const all = [tokens(1, 2, 3), tokens(2, 2, 3), tokens(1, 3, 2), tokens(1, 2, 4), tokens(1, 2), tokens(1)];
    expect(new Set(all).size).toBe(all.length);
  });

  test('stay within a vocabulary, small or large', () => {
    for (const vocabSize of [2, 300, 32_000]) {
      const ids = randomTokens(2000, vocabSize, new Random(0));
      expect(Math.max(...ids)).toBeLessThan(vocabSize);
      expect(Math.min(...ids)).toBeGreaterThanOrEqual(vocabSize > 1000 ? 259 : 0);
      expect(new Set(ids).size).toBeGreaterThan(1);
    }
  });
});

describe('prompts made for a load', () => {
  const make = (isPrefixShared: boolean, run = 0, requestRate: number | null = null) =>
    syntheticWorkload(
      { promptTokens: 20, outputTokens: 5, prefixTokens: 30, isPrefixShared },
      { count: 10, requestRate },
      { vocabSize: 32_000, seed: 1, run },
    );

  test('share their prefix exactly, warm, and nothing, cold', () => {
    for (const [isShared, expected] of [
      [true, 30],
      [false, 0],
    ] as const) {
      const { request, warmup } = make(isShared);
      const prompts = [warmup(0), request(0), request(1), make(isShared, 1).request(0)].map((r) => r.promptIds);
      for (const prompt of prompts) expect(prompt).toHaveLength(50);
      const pairs = prompts.flatMap((a, i) => prompts.slice(i + 1).map((b) => shared(a, b)));
      expect(pairs).toEqual(Array(6).fill(expected));
    }
  });

  test('arrive at ascending times, or at once', () => {
    const { request } = make(false, 0, 10);
    const times = Array.from({ length: 10 }, (_, i) => request(i).atMs!);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(request(3).atMs).toBe(times[3]);
    expect(make(false, 0, 10).request(3)).toEqual(request(3));
    expect(make(false).request(3).atMs).toBeNull();
  });
});

const azure = `TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:17:03.9799600,4808,10\r
2023-11-16 18:17:04.0319600,3180,8\r
`;
const mooncake = [
  { timestamp: 0, input_length: 1200, output_length: 3, hash_ids: [0, 1, 2] },
  { timestamp: 3000, input_length: 1500, output_length: 2, hash_ids: [0, 1, 7] },
  { timestamp: 1000, input_length: 700, output_length: 0, hash_ids: [0, 9] },
]
  .map((line) => JSON.stringify(line))
  .join('\n');

describe('traces', () => {
  test('of Azure are read with times in milliseconds', () => {
    const [first, second] = readTrace(file('azure.csv', azure));
    expect(first).toEqual({ atMs: 0, promptTokens: 4808, outputTokens: 10, blocks: null });
    expect(second).toMatchObject({ promptTokens: 3180, outputTokens: 8 });
    expect(second!.atMs).toBeCloseTo(52, 6);
  });

  test('of Mooncake give prompts that begin alike as far as their blocks do, in order of arrival', () => {
    const trace = readTrace(file('mooncake.jsonl', mooncake));
    expect(trace.map(({ atMs }) => atMs)).toEqual([0, 1000, 3000]);
    const options = { count: null, lengthScale: 1, speed: 10, contextSize: 4096 };
    const { request, count, numCut } = traceWorkload(trace, options, { vocabSize: 32_000, seed: 0, run: 0 });
    const [a, b, c] = [request(0), request(1), request(2)];
    expect({ count, numCut }).toEqual({ count: 3, numCut: 0 });
    expect([a, b, c].map(({ promptIds }) => promptIds.length)).toEqual([1200, 700, 1500]);
    expect([a, b, c].map(({ outputTokens }) => outputTokens)).toEqual([3, 1, 2]);
    expect([a, b, c].map(({ atMs }) => atMs)).toEqual([0, 100, 300]);
    expect(shared(a.promptIds, c.promptIds)).toBe(1024);
    expect(shared(a.promptIds, b.promptIds)).toBe(512);
  });

  test('are shortened by a factor, and cut where the context ends', () => {
    const trace = readTrace(file('mooncake.jsonl', mooncake));
    const options = { count: 2, lengthScale: 0.125, speed: 1, contextSize: 100 };
    const { request, count, numCut } = traceWorkload(trace, options, { vocabSize: 32_000, seed: 0, run: 0 });
    expect({ count, numCut }).toEqual({ count: 2, numCut: 1 });
    expect(request(0).promptIds).toHaveLength(99); // 150, but 100 with the answer
    expect(request(1).promptIds).toHaveLength(88);
    expect(shared(request(0).promptIds, request(1).promptIds)).toBe(64);
  });

  test.each([
    ['TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,,10', 'line 2'],
    ['TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,10', 'line 2'],
    ['TIMESTAMP,ContextTokens,GeneratedTokens\n', 'line 1'],
    ['{"timestamp": 0, "input_length": -1, "output_length": 1}', 'line 1'],
    ['{"timestamp": 0, "input_length": 1e9, "output_length": 1}', 'line 1'],
    ['{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["x"]}', 'line 1'],
    [`${mooncake}\nnull`, 'line 4'],
    ['', 'line 1'],
  ])('that are none are refused: %j', async (text, line) => {
    await expectEngineError(() => readTrace(file('bad', text)), 'FORMAT_INVALID', line);
  });

  itWithData('workload/azure/AzureLLMInferenceTrace_conv.csv', 'of Azure are read whole', (path) => {
    const trace = readTrace(path);
    expect(trace).toHaveLength(19_366);
    expect(trace.at(-1)!.atMs / 60_000).toBeGreaterThan(50);
  });

  itWithData('workload/mooncake/conversation_trace.jsonl', 'of Mooncake are read whole', (path) => {
    const trace = readTrace(path);
    expect(trace).toHaveLength(12_031);
    expect(trace.every(({ blocks, promptTokens }) => blocks!.length === Math.ceil(promptTokens / 512))).toBe(true);
  });
});
