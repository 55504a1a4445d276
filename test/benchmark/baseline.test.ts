import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  baselineRows,
  besideBaseline,
  counterpart,
  readBaseline,
  requireComparable,
} from '../../src/benchmark/baseline.js';
import type { BenchRow } from '../../src/benchmark/report.js';
import { rungsOf } from '../../src/benchmark/rungs.js';
import { expectEngineError } from '../formats/engine-error.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-baseline-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function row(more: Partial<BenchRow>): BenchRow {
  const rate = { median: 100, min: 80, max: 120, runs: 5 };
  const sizes = { batch: 1, prompt_tokens: 512, generated_tokens: 128 };
  return { name: 'eager: decode', backend: 'other', dtype: 'bf16', ...sizes, tokens_per_second: rate, ...more };
}

const rate = (median: number) => ({ tokens_per_second: { median, min: median, max: median, runs: 3 } });

function written(report: unknown) {
  const path = join(folder, 'baseline.json');
  writeFileSync(path, typeof report === 'string' ? report : JSON.stringify(report));
  return path;
}

const baseline = (...rows: BenchRow[]) =>
  readBaseline(written({ machine: { gpu: 'H200' }, model: { parameters: 1000 }, rows }));

describe('a baseline', () => {
  test('gives each of our rows its ratio to the fastest of the same sizes and bits', () => {
    const other = baseline(
      row({ ...rate(50), peak_gb_per_second: 4000 }),
      row({ name: 'torch.compile: decode' }),
      row({ ...rate(400), name: 'int8: decode', dtype: 'int8' }),
      row({ ...rate(900), batch: 8 }),
    );
    const ours = [
      row({ ...rate(200), backend: 'native-cuda:sm_90', dtype: 'f16', gb_per_second: 3000 }),
      row({ ...rate(200), dtype: 'q8_0' }),
      row({ ...rate(200), dtype: 'int8+int4' }),
      row({ ...rate(200), generated_tokens: 0 }),
    ];
    const [float, eight, four, prefill] = besideBaseline(ours, other);
    expect(float!.ratio).toEqual({ median: 2, min: 200 / 120, max: 2.5, runs: 3 });
    expect(float).toMatchObject({ peak_gb_per_second: 4000, percent_of_peak: 75 });
    expect(eight!.ratio!.median).toBe(0.5);
    for (const without of [four!, prefill!]) expect(without).not.toHaveProperty('ratio');
    expect(counterpart(ours[0]!, other)!.name).toBe('torch.compile: decode');
    expect(baselineRows(ours, other)).toHaveLength(3);
    expect(other.gpu).toBe('H200');
  });

  test('says nothing about a processor that measured its own bandwidth', () => {
    const own = row({ backend: 'native-cpu:avx2', gb_per_second: 10, peak_gb_per_second: 20, percent_of_peak: 50 });
    expect(besideBaseline([own], baseline(row({ peak_gb_per_second: 4000 })))[0]).toMatchObject({
      peak_gb_per_second: 20,
      percent_of_peak: 50,
    });
  });

  test('of another model, or of other sizes only, is refused', async () => {
    const other = baseline(row({}));
    requireComparable(other, 1000, [row({ generated_tokens: 7 })]);
    const refused = (parameters: number, size: BenchRow, part: string) =>
      expectEngineError(() => requireComparable(other, parameters, [size]), 'OPTION_INVALID', '--baseline', part);
    await refused(1001, row({}), 'measurements of 1001 parameters as in the model, not of 1000');
    await refused(1000, row({ batch: 2 }), 'a row for decode of batch 2 after prompts of 512 tokens');
    await refused(1000, row({ generated_tokens: 0 }), 'a row for prefill of batch 1');
  });

  test.each([
    ['no JSON', '{', 'it is no JSON'],
    ['no object', 'null', 'model.parameters'],
    ['no rows', { model: { parameters: 1 }, rows: [] }, '1 to 1000 rows'],
    ['a row without a rate', { model: { parameters: 1 }, rows: [{ ...row({}), tokens_per_second: {} }] }, 'row 0'],
    ['a row with a rate of 0', { model: { parameters: 1 }, rows: [row({}), row(rate(0))] }, 'row 1'],
    ['a long name', { model: { parameters: 1 }, rows: [row({ name: 'x'.repeat(101) })] }, 'row 0'],
  ])('with %s is refused', async (_, report, part) => {
    const path = written(report);
    await expectEngineError(() => readBaseline(path), 'FILE_UNREADABLE', path, part);
  });

  test('that is missing, or a folder, is refused', async () => {
    await expectEngineError(() => readBaseline(join(folder, 'nowhere')), 'FILE_NOT_FOUND', 'baseline', 'nowhere');
    await expectEngineError(() => readBaseline(folder), 'FILE_UNREADABLE', folder);
  });
});

describe('steps of the ladder', () => {
  const namesOf = (backend: string, isFloat = true) =>
    rungsOf(backend)
      .filter(({ applies }) => applies({ isFloat }, 2))
      .map(({ name }) => name);

  test('are those that the backend can take', () => {
    expect(namesOf('native-cpu:avx2')).toEqual(['plain C++', 'SIMD', 'threads', 'INT8', 'INT4']);
    expect(namesOf('native-cuda:sm_90')).toEqual([
      'plain ops launched one by one',
      'fused ops, overlapping, CUDA graph',
      'INT8',
      'INT4',
    ]);
    expect(namesOf('reference')).toEqual(['recorded plan', 'INT8', 'INT4']);
  });

  test('of a quantised file end where it would be quantised', () => {
    expect(namesOf('native-cpu:avx2', false)).toEqual(['plain C++', 'SIMD', 'threads', '8-bit activations']);
    expect(namesOf('reference', false)).toEqual(['recorded plan']);
  });
});
