import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/hub.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { type Run, runCli, runJson } from './run-cli.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const draft = join(root, 'models/fable-draft-q8_0.gguf');
const folder = temporaryFolder();
let count = 0;
const fresh = () => join(folder, `${count++}.gguf`);

interface Totals {
  readonly tensors: number;
  readonly weights: number;
  readonly bytes_before: number;
  readonly bytes_after: number;
  readonly bits_per_weight: number;
  readonly relative_error: number;
}

interface Report {
  readonly type: string;
  readonly head_type: string;
  readonly method: string;
  readonly types: readonly (Totals & { readonly dtype: string })[];
  readonly total: Totals;
}

const quantize = (...args: string[]) => runCli(['quantize', ...args]);

function expectRefusal({ code, stdout, stderr }: Run, ...parts: string[]): void {
  expect({ code, stdout, lines: stderr.trimEnd().split('\n').length }).toEqual({ code: 2, stdout: '', lines: 1 });
  for (const part of parts) expect(stderr).toContain(part);
}

describe('engine quantize', () => {
  test('writes a file that can be run, and says what it is made of', async () => {
    const output = fresh();
    const { code, stdout, stderr } = await quantize(draft, output, '--type', 'int4');
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringMatching(/^wrote .* in [\d.]+ s\n$/) });
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^type +tensors +weights +before +after +bits\/weight +error$/);
    expect(lines.slice(1).map((line) => line.split(' ')[0])).toEqual(['int8', 'f32', 'int4', 'all']);
    const flags = ['--backend', 'reference', '-p', 'Once', '-n', '4', '--temperature', '0'];
    const answer = await runJson<{ token_ids: number[] }>(['generate', '-m', output, ...flags]);
    const atLoad = await runJson<{ token_ids: number[] }>(['generate', '-m', draft, '--quantize', 'int4', ...flags]);
    expect(answer.token_ids).toHaveLength(4);
    expect(answer.token_ids).toEqual(atLoad.token_ids);
  });

  test('reports as JSON', async () => {
    const output = fresh();
    const args = ['quantize', draft, output, '--type', 'int4', '--group-size', '64', '--head-type', 'keep'];
    const report = await runJson<Report>(args);
    expect(report).toMatchObject({ type: 'int4_g64', head_type: 'keep', method: 'rtn' });
    expect(report.total.tensors).toBe(report.types.reduce((sum, { tensors }) => sum + tensors, 0));
    expect(report.total.bytes_after).toBeLessThan(report.total.bytes_before);
    expect(report.total.bytes_after).toBeLessThanOrEqual(readFileSync(output).length);
    const int4 = report.types.find(({ dtype }) => dtype === 'int4_g64')!;
    expect(int4.bits_per_weight).toBeCloseTo((8 * int4.bytes_after) / int4.weights, 10);
    expect(int4.relative_error).toBeGreaterThan(0.03);
    expect(int4.relative_error).toBeLessThan(0.12);
    const inspected = await runJson<{ dtypes: Record<string, number> }>(['inspect', output]);
    expect(inspected.dtypes).toMatchObject({ int4_g64: int4.tensors, q8_0: 1 });
  });

  test.each([
    [['--symmetric'], 'int4_sym', 'int8'],
    [['--group-size', '128'], 'int4_g128', 'int8'],
    [['--head-type', 'int4'], 'int4', 'int4'],
  ])('int4 %j is %s with a head of %s', async (flags, type, headType) => {
    const report = await runJson<Report>(['quantize', draft, fresh(), '--type', 'int4', ...flags]);
    expect([report.type, report.head_type]).toEqual([type, headType]);
  });

  test('writes the same bytes with any number of threads', async () => {
    const outputs = [fresh(), fresh()];
    for (const [i, threads] of ['1', '5'].entries()) {
      expect((await quantize(draft, outputs[i]!, '--type', 'int8', '--threads', threads)).code).toBe(0);
    }
    expect(readFileSync(outputs[0]!).equals(readFileSync(outputs[1]!))).toBe(true);
  });
});

describe('engine quantize refuses', () => {
  const cases: readonly (readonly [what: string, flags: readonly string[], ...message: string[]])[] = [
    ['no type', [], '--type is missing', 'int8 or int4'],
    ['an unknown type', ['--type', 'int5'], '--type is "int5"', 'int8, int4'],
    ['an unknown group size', ['--type', 'int4', '--group-size', '48'], '--group-size is 48', '32, 64, 128'],
    [
      'groups of int8 that are not 32',
      ['--type', 'int8', '--group-size', '64'],
      '--group-size is 64',
      '32 with --type int8',
    ],
    ['large groups without minimums', ['--type', 'int4', '--symmetric', '--group-size', '64'], '32 with --symmetric'],
    ['int8 that is to be symmetric', ['--type', 'int8', '--symmetric'], '--symmetric'],
    ['an unknown head type', ['--type', 'int4', '--head-type', 'f64'], '--head-type is "f64"', 'int8, int4, keep'],
    ['no threads', ['--type', 'int4', '--threads', '0'], '--threads is 0', '1 to 256'],
  ];
  for (const [what, flags, ...message] of cases) {
    test(what, async () => {
      const output = fresh();
      expectRefusal(await quantize(draft, output, ...flags), ...message);
      expect(existsSync(output)).toBe(false);
    });
  }

  test('a missing output path, a missing model, a file that is none', async () => {
    expectRefusal(await quantize(draft, '--type', 'int4'), '[USAGE]', 'out');
    expectRefusal(await quantize(join(folder, 'none.gguf'), fresh(), '--type', 'int4'), 'FILE_NOT_FOUND', 'none.gguf');
    const text = join(folder, 'text.gguf');
    writeFileSync(text, 'this is no model at all');
    expectRefusal(await quantize(text, fresh(), '--type', 'int4'), 'FORMAT_UNKNOWN');
  });

  test('to write over the model, or over anything without --force', async () => {
    const copy = fresh();
    writeFileSync(copy, readFileSync(draft));
    expectRefusal(await quantize(copy, copy, '--type', 'int4', '--force'), 'FILE_UNWRITABLE', 'to be quantised');
    expectRefusal(await quantize(draft, copy, '--type', 'int4'), 'FILE_UNWRITABLE', '--force');
    expect(readFileSync(copy).equals(readFileSync(draft))).toBe(true);
  });
});

test('a quantised file whose factors are no numbers is refused when it is run', async () => {
  const output = fresh();
  expect((await quantize(draft, output, '--type', 'int4')).code).toBe(0);
  const { tensors } = await openModel(output);
  const bytes = readFileSync(output);
  for (const { dtype, offset, byteLength } of tensors.values()) {
    if (dtype.startsWith('int')) bytes.fill(0xff, offset, offset + byteLength);
  }
  writeFileSync(output, bytes);
  expectRefusal(
    await runCli(['generate', '-m', output, '--backend', 'reference', '-p', 'Once', '-n', '2']),
    'NO_TOKEN_ALLOWED',
    'check the weights',
  );
});

test('a full disk leaves nothing behind', () => {
  const output = fresh();
  const main = join(root, 'dist/cli/main.js');
  // A limit of 400 blocks of 1 KiB on the size of files; the model needs more.
  const script = `ulimit -f 400; exec "${process.execPath}" "${main}" quantize "${draft}" "${output}" --type int4`;
  const { status, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
  expect(stderr).toContain('FILE_UNWRITABLE');
  expect(stderr).toContain('no file of this size');
  expect(status).toBe(2);
  expect(readdirSync(folder).filter((name) => output.endsWith(name.split('.partial')[0]!))).toEqual([]);
});
