import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { runCli } from '../cli/run-cli.js';
import { writeTinyChatModel } from '../cli/tiny-chat-model.js';
import { seededRandom } from '../tensor/random.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where cmake-js builds the addon. */
const buildFolder = join(root, 'build', 'cmake');
const noRunner =
  noEmulatedCuda ??
  (existsSync(join(buildFolder, 'CMakeCache.txt')) ? null : ' (skipped: the addon was not built in build/cmake)');

interface Line {
  readonly name: string;
  readonly batch: number;
  readonly tokens: number;
  readonly context: number;
  readonly launches: number;
  readonly steps_per_call: number;
  readonly calls: number;
  readonly ms: { readonly median: number; readonly min: number; readonly max: number };
  readonly tokens_per_second: number;
  readonly gb: number;
  readonly gb_per_second: number;
  readonly percent_of_copies: number;
  readonly percent_of_datasheet: number;
  readonly tflop_per_second: number;
}

describe.skipIf(noRunner)(`cuda_runner${noRunner ?? ''}`, { timeout: 120_000 }, () => {
  const folder = temporaryFolder();
  const plan = join(folder, 'tiny.plan');
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
    await run('cmake', ['--build', buildFolder, '--target', 'cuda_runner', '--parallel', '2'], {
      maxBuffer: 2 ** 26,
    });
    const model = writeTinyChatModel(join(folder, 'tiny.gguf'));
    const flags = ['--context-size', '64', '--batch-size', '4', '--save-plan', plan];
    expect((await runCli(['inspect', model, ...flags])).code).toBe(0);
  }, BUILD_TIMEOUT);

  const runner = (file: string, ...steps: string[]) =>
    spawnSync(join(root, 'build', 'Release', 'cuda_runner'), [library, file, ...steps], {
      encoding: 'utf8',
      timeout: 60_000,
    });

  it('measures decode and prefill as the plan allows', () => {
    const { status, stdout, stderr } = runner(plan, '10');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [device, ...lines] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(device).toMatchObject({ name: 'device', device: 'Emulated GPU', datasheet_gb_per_second: 100 });
    expect(device.copies_gb_per_second).toBeGreaterThan(0);
    const measured = lines as Line[];
    expect(
      measured.map(({ name, batch, tokens, context, steps_per_call, calls }) => [
        name,
        batch,
        tokens,
        context,
        steps_per_call,
        calls,
      ]),
    ).toEqual([
      ['decode', 1, 1, 32, 1, 10],
      ['decode', 1, 1, 32, 8, 10],
      ['decode', 4, 1, 32, 1, 10],
      ['decode', 4, 1, 32, 8, 10],
      ['prefill', 1, 64, 0, 1, 1],
    ]);
    for (const line of measured) {
      const { batch, tokens, ms } = line;
      expect(ms.min).toBeLessThanOrEqual(ms.median);
      expect(ms.max).toBeGreaterThanOrEqual(ms.median);
      expect((line.tokens_per_second * ms.median) / 1000 / (batch * tokens)).toBeCloseTo(1, 1);
      expect((line.gb_per_second * ms.median) / 1000 / line.gb).toBeCloseTo(1, 1);
      expect(line.percent_of_datasheet).toBeCloseTo(line.gb_per_second, 1); // of 100
      expect(line.percent_of_copies / ((100 * line.gb_per_second) / device.copies_gb_per_second)).toBeCloseTo(1, 1);
      expect(line.tflop_per_second).toBeGreaterThanOrEqual(0);
      expect(line.launches).toBeGreaterThan(10);
      expect(Number.isInteger(line.launches)).toBe(true);
    }
  });

  it('says how much a step reads: the tiles of all matrices once, keys and values of every sequence', () => {
    const words = new Int32Array(new Uint8Array(readFileSync(plan).subarray(8)).buffer);
    const [, numBuffers, numWeights] = words;
    // Matrices are f32: two halves a weight, rows in tiles of 16 with 12 bytes a row, columns padded to 256.
    const table = Array.from({ length: numWeights! }, (_, i) => {
      const at = 16 + 3 * numBuffers! + 8 * i;
      return { rows: words[at + 4]!, columns: words[at + 5]! };
    });
    const tiles = table
      .filter(({ rows }) => rows > 1)
      .map(({ rows, columns }) => Math.ceil(rows / 16) * 16 * (Math.ceil(columns / 256) * 256 * 4 + 12));
    const lines = runner(plan, '1').stdout.trimEnd().split('\n').slice(1);
    const measured = lines.map((line) => JSON.parse(line) as Line);
    const [alone, four] = [1, 4].map(
      (batch) => 1e9 * measured.find((line) => line.batch === batch && line.steps_per_call === 1)!.gb,
    );
    const kv = (four! - alone!) / 3;
    expect(kv).toBeGreaterThan(0);
    expect(Math.round(alone! - kv)).toBe(tiles.reduce((sum, bytes) => sum + bytes, 0));
  });

  it.each([
    ['nothing', () => Buffer.alloc(0), /is no saved plan/],
    ['another file', () => Buffer.from('GGUF and more'), /is no saved plan/],
    ['half a word', (bytes: Buffer) => bytes.subarray(0, -1), /ends within a word/],
    ['a plan that is cut', (bytes: Buffer) => bytes.subarray(0, 8 + 4 * 100), /the plan's words end early/],
    ['a plan that goes on', (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(4)]), /go on after its last op/],
    ['too much', () => Buffer.concat([Buffer.from('ENGNPLAN'), Buffer.alloc(16 * 2 ** 20)]), /more than the 16777216/],
    ['another version', (bytes: Buffer) => withWord(bytes, 0, 2 ** 30), /another version/],
    ['2^31 − 1 buffers', (bytes: Buffer) => withWord(bytes, 1, 2 ** 31 - 1), /hostile.plan: the plan/],
    ['a context of 2^24', (bytes: Buffer) => withWord(bytes, 12, 2 ** 24), /leave no room for a sequence/],
    ['2^26 blocks', (bytes: Buffer) => withWord(bytes, 14, 2 ** 26), /OUT_OF_MEMORY/],
    ['no blocks', (bytes: Buffer) => withWord(bytes, 14, 0), /leave no room for a sequence/],
  ] as const)('refuses %s', (_, make, message) => {
    const path = join(folder, 'hostile.plan');
    writeFileSync(path, make(readFileSync(plan)));
    const { status, stderr } = runner(path, '1');
    expect(stderr).toMatch(message);
    expect(status).toBe(2);
  });

  it('refuses folders, missing files, other libraries and other numbers of steps', () => {
    expect(runner(folder).stderr).toMatch(/is no saved plan/);
    expect(runner(join(folder, 'none')).stderr).toMatch(/is no saved plan/);
    for (const steps of ['0', '-1', '100001', '1x', ''])
      expect(runner(plan, steps).stderr).toMatch(/^cuda_runner: usage/);
    const other = spawnSync(join(root, 'build', 'Release', 'cuda_runner'), ['/proc/self/exe', plan]);
    expect([other.status, String(other.stderr)]).toEqual([2, expect.stringMatching(/BACKEND_UNAVAILABLE/)]);
  });

  it('runs or refuses plans with flipped bits, and never crashes', () => {
    const seed = Number(process.env.ENGINE_FUZZ_SEED ?? 1);
    const random = seededRandom(seed);
    const bytes = readFileSync(plan);
    const path = join(folder, 'flipped.plan');
    for (let round = 0; round < Number(process.env.ENGINE_FUZZ_ROUNDS ?? 10); round++) {
      const flipped = Buffer.from(bytes);
      for (let i = 0; i < 3; i++) {
        const at = 8 + Math.floor(random() * (bytes.length - 8));
        flipped[at] = flipped[at]! ^ (1 << Math.floor(random() * 8));
      }
      writeFileSync(path, flipped);
      const { status, stderr } = runner(path, '1');
      expect([0, 2], `seed ${seed}, round ${round}: ${stderr}`).toContain(status);
      if (status === 2) expect(stderr).toMatch(/^cuda_runner: ./);
    }
  });
});

function withWord(bytes: Buffer, index: number, value: number): Buffer {
  const changed = Buffer.from(bytes);
  changed.writeInt32LE(value, 8 + 4 * index);
  return changed;
}
