import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repeat } from '../../src/benchmark/repetition.js';
import { benchmarkSpeed, type SpeedOptions } from '../../src/benchmark/speed.js';
import { contextNeeded, measureDecode, measurePrefill, promptOf } from '../../src/benchmark/throughput.js';
import { Engine } from '../../src/library/engine.js';
import { writeSyntheticModel } from '../../src/synthetic/model.js';
import { expectEngineError } from '../formats/engine-error.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-throughput-'));
const model = join(folder, '15m.gguf');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(() => writeSyntheticModel(model, { shape: '15m', type: 'q4_0' }));

describe('repetition', () => {
  test('as many results as asked for, after two that warm up', async () => {
    let calls = 0;
    expect(await repeat('count', 3, async () => ++calls)).toEqual([3, 4, 5]);
  });

  test('a failure ends it and is thrown', async () => {
    let calls = 0;
    const measure = async () => {
      if (++calls === 3) throw new Error('third');
      return calls;
    };
    await expect(repeat('fail', 5, measure)).rejects.toThrow('third');
    expect(calls).toBe(3);
  });
});

describe('throughput', () => {
  test.each([
    { batch: 1, promptTokens: 1, generatedTokens: 1 },
    { batch: 3, promptTokens: 5, generatedTokens: 20 },
    // Longer than a step: the first ones generate while the last ones are read.
    { batch: 6, promptTokens: 200, generatedTokens: 6 },
  ])(
    'of $batch sequences with $promptTokens and $generatedTokens tokens is a rate, within its memory',
    async (workload) => {
      const contextSize = contextNeeded(workload);
      await using engine = await Engine.load({ model, contextSize, batchSize: workload.batch });
      const start = performance.now();
      const rate = await measureDecode(engine, workload);
      const seconds = (performance.now() - start) / 1000;
      // It cannot have taken longer than the call did.
      expect(rate).toBeGreaterThanOrEqual((workload.batch * workload.generatedTokens) / seconds);
      expect(Number.isFinite(rate)).toBe(true);
      expect(await measurePrefill(engine, workload)).toBeGreaterThan(0);
    },
  );

  test('prompts differ between sequences and stay inside the vocabulary', () => {
    const prompts = [0, 1].map((sequence) => promptOf(50, 32_000, sequence));
    expect(prompts[0]).not.toEqual(prompts[1]);
    for (const size of [2, 300, 301, 32_000]) {
      for (const id of promptOf(400, size)) expect(id >= 0 && id < size).toBe(true);
    }
  });
});

describe('a benchmark of speed', () => {
  const options: SpeedOptions = { kind: 'decode', model, load: {}, runs: 1 };

  test('has a row for every batch', async () => {
    const { rows, model: measured } = await benchmarkSpeed({ ...options, generatedTokens: 3, batches: [1, 4] });
    expect(measured.name).toBe('15m.gguf');
    expect(rows.map(({ batch, generated_tokens }) => [batch, generated_tokens])).toEqual([
      [1, 3],
      [4, 3],
    ]);
    for (const { tokens_per_second: rate, gb_per_second: gb, bytes_per_token: bytes } of rows) {
      expect(rate).toMatchObject({ runs: 1, min: rate.median, max: rate.median });
      expect(gb).toBeCloseTo((rate.median * bytes!) / 1e9, 6);
    }
  });

  test('sizes that nobody asked for shrink to the context; those asked for are refused', async () => {
    const { rows } = await benchmarkSpeed({ ...options, kind: 'prefill', check: false });
    expect(rows[0]).toMatchObject({ prompt_tokens: 255, generated_tokens: 0 });
    const refused = (more: Partial<SpeedOptions>, ...parts: string[]) =>
      expectEngineError(() => benchmarkSpeed({ ...options, ...more }), 'OPTION_INVALID', ...parts);
    await refused({ promptTokens: 256 }, '--prompt-tokens is 256', '1 to 255');
    await refused({ promptTokens: 200, generatedTokens: 60 }, '--generated-tokens is 60');
    await refused({ batches: [257] }, '--batch is 257');
    await refused({ runs: 0 }, '--runs is 0');
  });

  test('an aborted signal ends it', async () => {
    const abort = new AbortController();
    const onProgress = () => abort.abort();
    await expectEngineError(() => benchmarkSpeed({ ...options, signal: abort.signal, onProgress }), 'ABORTED');
  });
});
