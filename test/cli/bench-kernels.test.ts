import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { KernelReport } from '../../src/benchmark/kernels.js';
import { notBuilt } from '../backend/native-availability.js';
import { runCli, runJson } from './run-cli.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-bench-kernels-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(notBuilt)(`engine bench kernels${notBuilt ?? ''}`, () => {
  it('reports rates beside the peaks of the same run', async () => {
    const path = join(folder, 'kernels.json');
    const sizes = ['--shape', '64x256,128x512', '--tokens', '1,3', '--threads', '1,2', '--runs', '3'];
    const args = ['bench', 'kernels', ...sizes, '--types', 'f32,q4_k', '--json', path];
    const { code, stdout } = await runCli(args);
    expect(code).toBe(0);
    expect(stdout).toContain('% of peak');
    const report = JSON.parse(readFileSync(path, 'utf8')) as KernelReport;
    expect(Object.keys(report)).toEqual(['machine', 'commit', 'command', 'model', 'peaks', 'rows']);
    expect(report.command).toBe(`engine ${args.join(' ')}`);
    expect(report.peaks.map(({ what, threads }) => `${what} ${threads}`).sort()).toEqual(
      ['dot4 1', 'dot4 2', 'multiply_add 1', 'multiply_add 2', 'read 1', 'read 2'].sort(),
    );
    expect(report.rows).toHaveLength(2 * 2 * 2 * 2);
    for (const row of report.rows) {
      expect(row).toMatchObject({ name: 'linear', prompt_tokens: 0, generated_tokens: 0, microseconds: { runs: 3 } });
      const read = report.peaks.find(({ what, threads }) => what === 'read' && threads === row.threads)!;
      expect(row.peak_gb_per_second).toBe(read.gb_per_second!.median);
      expect(row.percent_of_peak).toBeCloseTo((100 * row.gb_per_second!) / row.peak_gb_per_second!, 9);
      expect(row.percent_of_peak_compute).toBeCloseTo((100 * row.gop_per_second!) / row.peak_gop_per_second!, 9);
      expect(row.tokens_per_second.median * row.microseconds.median).toBeCloseTo(row.batch * 1e6, 3);
      expect(row.gop_per_second).toBeGreaterThan(0);
    }
    expect(report.rows[0]).toMatchObject({ dtype: 'f32', shape: '64x256', batch: 1, threads: 1 });
  });

  it('measures attention and what is done to rows as well, unless types are named', async () => {
    const { rows } = await runJson<KernelReport>([
      'bench',
      'kernels',
      '--shape',
      '64x64',
      '--tokens',
      '2',
      '--threads',
      '1',
      '--runs',
      '3',
    ]);
    expect(new Set(rows.map(({ name }) => name))).toEqual(new Set(['linear', 'attention', 'rms_norm', 'silu_mul']));
    // K-quants have blocks of 256.
    expect(rows.filter(({ dtype }) => dtype === 'q4_k')).toEqual([]);
    const [attention] = rows.filter(({ name }) => name === 'attention');
    expect(attention).toMatchObject({ dtype: 'f16', prompt_tokens: 512, percent_of_peak: expect.any(Number) });
    const [norm] = rows.filter(({ name }) => name === 'rms_norm');
    expect(norm!.gb_per_second).toBeGreaterThan(0);
    expect(norm).not.toHaveProperty('percent_of_peak');
  });

  it.each([
    [['--types', 'q9'], '--types is "q9"; expected some of f32'],
    [['--types', 'toString'], '--types is "toString"'],
    [['--types', 'q4_k', '--shape', '64x100'], 'columns of --shape is 100; expected a multiple of 256 for q4_k'],
    [['--shape', '64'], '--shape is "64"; expected rows x columns'],
    [['--shape', '2000000x64'], 'rows of --shape is 2000000'],
    [['--tokens', '0'], '--tokens is 0'],
    [['--tokens', '5000'], '--tokens is 5000; expected a whole number from 1 to 4096'],
    [['--threads', '1,x'], '--threads is NaN'],
    [['--threads', '1,,2'], '--threads is "1,,2"'],
    [['--runs', '0'], '--runs is 0'],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await runCli(['bench', 'kernels', ...args]);
    expect(code).toBe(2);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toContain(message);
  });
});

describe.skipIf(notBuilt)(`engine doctor --measure${notBuilt ?? ''}`, () => {
  it('adds the rate at which memory is read', async () => {
    const report = await runJson<{ read_gb_per_second: Record<string, number> }>(['doctor', '--measure']);
    expect(report.read_gb_per_second['1']).toBeGreaterThan(0.5);
  });
});

describe.skipIf(notBuilt)(`engine bench decode${notBuilt ?? ''}`, () => {
  it('puts a rate beside the peaks of the same run', async () => {
    const args = ['bench', 'decode', '--synthetic', '15m', '--threads', '1', '--runs', '1', '--generated-tokens', '4'];
    const { rows } = await runJson<KernelReport>([...args, '--no-check']);
    const [row] = rows;
    expect(row!.percent_of_peak).toBeCloseTo((100 * row!.gb_per_second!) / row!.peak_gb_per_second!, 9);
    expect(row!.percent_of_peak_compute).toBeCloseTo((100 * row!.gop_per_second!) / row!.peak_gop_per_second!, 9);
  });
});
