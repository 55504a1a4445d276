import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { BenchReport } from '../../src/benchmark/report.js';
import { runCli, runJson } from './run-cli.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-bench-cli-'));
/** Temporary files of the program go here, so that what is left over can be seen. */
const scratch = mkdtempSync(join(tmpdir(), 'engine-bench-scratch-'));
afterAll(() => {
  for (const path of [folder, scratch]) rmSync(path, { recursive: true, force: true });
});
const env = { TMPDIR: scratch, TEMP: scratch };
const tiny = ['--synthetic', '15m', '--threads', '1', '--runs', '1'];

describe('engine bench synthetic', () => {
  it('writes a model, the same for the same seed', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(folder, `${name}.gguf`)) as [string, string, string];
    const write = (path: string, seed: string) =>
      runCli(['bench', 'synthetic', '15m', '--type', 'q4_0', '--seed', seed, '--out', path]);
    const runs = await Promise.all([write(a, '5'), write(b, '5'), write(c, '6')]);
    for (const { code, stdout } of runs) expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    expect(readFileSync(a).equals(readFileSync(b))).toBe(true);
    expect(readFileSync(a).equals(readFileSync(c))).toBe(false);
    const { code, stdout } = await runCli(['inspect', a]);
    expect(code).toBe(0);
    expect(stdout).toContain('llama');
  });

  it.each([
    [['16m', '--out', 'x'], 'shape is "16m"; expected one of 15m'],
    [['15m'], '--out is missing'],
    [['15m', '--type', 'q3', '--out', 'x'], '--type is "q3"'],
    [['15m', '--seed', '-1', '--out', 'x'], '--seed is -1'],
    [['15m', '--out', join(folder, 'missing', 'x')], 'cannot write'],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await runCli(['bench', 'synthetic', ...args]);
    expect(code).toBe(2);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toContain(message);
  });
});

describe('engine bench prefill and decode', () => {
  it('report what was measured, and remove the synthetic model', async () => {
    const path = join(folder, 'decode.json');
    const args = ['bench', 'decode', ...tiny, '--batch', '1,2', '--generated-tokens', '4', '--json', path];
    const { code, stdout } = await runCli(args, { env });
    expect(code).toBe(0);
    expect(stdout).toContain('tokens/s');
    const report = JSON.parse(readFileSync(path, 'utf8')) as BenchReport;
    expect(Object.keys(report)).toEqual(['machine', 'commit', 'command', 'model', 'rows']);
    expect(report.command).toBe(`engine ${args.join(' ')}`);
    expect(report.model).toMatchObject({ name: '15m-q4_0.gguf', architecture: 'llama', parameters: 24_407_712 });
    expect(report.rows).toHaveLength(2);
    for (const row of report.rows) {
      expect(row).toMatchObject({ name: 'decode', dtype: 'q4_0', threads: 1, prompt_tokens: 1, generated_tokens: 4 });
      expect(row.tokens_per_second).toMatchObject({ runs: 1 });
      expect(row.tokens_per_second.median).toBeGreaterThan(0);
    }
    expect(report.rows[1]!.bytes_per_token).toBeLessThan(report.rows[0]!.bytes_per_token!);
    expect(readdirSync(scratch)).toEqual([]);
  });

  it('measures beside busy processes, and ends them', async () => {
    const args = ['bench', 'decode', ...tiny, '--generated-tokens', '4', '--neighbours'];
    const { rows } = (await runJson([...args, '1', '--json'], { env })) as BenchReport;
    expect(rows.map(({ neighbours }) => neighbours)).toEqual([1]);
    const { code, stderr } = await runCli([...args, '-1'], { env });
    expect(code).toBe(2);
    expect(stderr).toContain('--neighbours is -1; expected a whole number from 0 to 256');
  });

  it('prints nothing but JSON with --json, and keeps the model with --keep', async () => {
    const args = ['bench', 'prefill', ...tiny, '--type', 'q8_0', '--prompt-tokens', '8', '--no-check', '--keep'];
    const { rows } = await runJson<BenchReport>(args, { env });
    expect(rows).toMatchObject([{ name: 'prefill', dtype: 'q8_0', batch: 1, prompt_tokens: 8, generated_tokens: 0 }]);
    const [kept] = readdirSync(scratch);
    expect(existsSync(join(scratch, kept!, '15m-q8_0.gguf'))).toBe(true);
  });

  it('say what to install where benny is missing', async () => {
    const hook = join(folder, 'hook.mjs');
    const preload = join(folder, 'preload.mjs');
    writeFileSync(
      hook,
      "export function resolve(name, c, next) { if (name === 'benny') throw Error(name); return next(name, c); }",
    );
    writeFileSync(preload, "import { register } from 'node:module'; register('./hook.mjs', import.meta.url);");
    const options = { env: { ...env, NODE_OPTIONS: `--import=${preload}` } };
    const { code, stderr } = await runCli(['bench', 'prefill', ...tiny, '--no-check'], options);
    expect(code).toBe(2);
    expect(stderr).toContain('[DEPENDENCY_MISSING] benny is not installed');
    expect(stderr).toContain('npm install benny');
  });

  it.each([
    [['--type', 'f16'], '--type is "f16"; expected --synthetic with it'],
    [['--synthetic', '15m', '-m', 'x.gguf'], 'no --model'],
    [['--batch', '0'], '--batch is "0"'],
    [['--runs', '1.5'], '--runs is 1.5'],
  ])('refuse %j', async (args, message) => {
    const { code, stderr } = await runCli(['bench', 'decode', ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe('engine bench peers', () => {
  it('times an opponent in turn, each in its own process', async () => {
    const opponent = join(folder, 'llama-bench');
    const script = 'process.stdout.write(JSON.stringify({ samples_ts: [100, 110, 120] }))';
    writeFileSync(opponent, `#!${process.execPath}\n${script}\n`);
    chmodSync(opponent, 0o755);
    const sizes = ['--batch', '1', '--prompt-tokens', '8', '--generated-tokens', '4', '--rounds', '2'];
    const report = await runJson<BenchReport>(['bench', 'peers', ...tiny, ...sizes, '--opponent-binary', opponent]);
    for (const kind of ['prefill', 'decode']) {
      const of = (backend: string) => report.rows.find((row) => row.name === kind && row.backend === backend)!;
      const [own, other] = [of('engine-ts'), of('llama.cpp')];
      expect(other.tokens_per_second).toEqual({ median: 110, min: 110, max: 110, runs: 2 });
      expect(other.ratio!.median).toBeCloseTo(own.tokens_per_second.median / 110, 6);
      expect(other.ratio!.runs).toBe(2);
    }
  }, 120_000);

  it('says what is missing', async () => {
    const { code, stderr } = await runCli(['bench', 'peers', ...tiny, '--opponent-binary', join(folder, 'nowhere')]);
    expect(code).toBe(2);
    expect(stderr).toContain('nowhere does not exist');
  });
});

describe('engine bench ladder', () => {
  it('measures every step, its quality beside it, and draws a chart', async () => {
    const text = join(folder, 'text.txt');
    writeFileSync(text, 'The old king had three sons, and the youngest of them was a fool. '.repeat(8));
    const svg = join(folder, 'ladder.svg');
    const sizes = ['--prompt-tokens', '8', '--generated-tokens', '2', '--runs', '1', '--quality-tokens', '100'];
    // The embedded model is quantised already, so the ladder ends with 8-bit activations.
    const { rows } = await runJson<BenchReport>([
      'bench',
      'ladder',
      '--file',
      text,
      ...sizes,
      '--svg',
      svg,
      '--threads',
      '2',
    ]);
    const steps = ['plain C++', 'SIMD', 'threads', '8-bit activations'];
    expect(rows.map(({ name }) => name)).toEqual(steps.flatMap((step) => [`${step}: prefill`, `${step}: decode`]));
    expect(rows[0]).toMatchObject({ backend: 'native-cpu:scalar', quality: { top1_agreement: 1 } });
    expect(rows[0]!.quality!.kl_mean).toBeLessThan(1e-6); // float16 keys and values
    expect(rows.at(-1)!.quality!.kl_mean).toBeGreaterThan(0);
    expect(rows.at(-1)!.quality!.kl_mean).toBeLessThan(0.01);
    expect(statSync(svg).size).toBeGreaterThan(1000);
    expect(readFileSync(svg, 'utf8')).toContain('8-bit activations');
  }, 120_000);

  it('takes a backend and a baseline of the same model, and prints ratios', async () => {
    const baseline = join(folder, 'baseline.json');
    const svg = join(folder, 'beside.svg');
    const sizes = ['--prompt-tokens', '4', '--generated-tokens', '2'];
    const args = ['bench', 'ladder', ...tiny, ...sizes, '--type', 'q8_0', '--backend', 'reference'];
    const other = {
      name: 'int8: prefill',
      backend: 'pytorch:cuda',
      dtype: 'int8',
      batch: 1,
      prompt_tokens: 4,
      generated_tokens: 0,
      tokens_per_second: { median: 1e6, min: 1e6, max: 1e6, runs: 3 },
    };
    const write = (parameters: number) =>
      writeFileSync(baseline, JSON.stringify({ model: { parameters }, rows: [other] }));
    write(24_407_713);
    const { code, stderr } = await runCli([...args, '--baseline', baseline], { env });
    expect(code).toBe(2);
    expect(stderr).toContain('expected measurements of 24407712 parameters');
    write(24_407_712);
    const { rows } = await runJson<BenchReport>([...args, '--baseline', baseline, '--svg', svg], { env });
    expect(rows.map(({ name }) => name)).toEqual(['recorded plan: prefill', 'recorded plan: decode', 'int8: prefill']);
    expect(rows[0]!.backend).toBe('reference');
    expect(rows[0]!.ratio!.median).toBeCloseTo(rows[0]!.tokens_per_second.median / 1e6, 9);
    expect(rows[1]).not.toHaveProperty('ratio');
    expect(readFileSync(svg, 'utf8')).toContain('>int8 1000000<');
    expect(readFileSync(svg, 'utf8')).toContain('outlined: pytorch:cuda');
  }, 120_000);
});
