import { execFile, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const runs = (program: string): boolean => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

const source = fileURLToPath(new URL('.', import.meta.url));
const buildFolder = fileURLToPath(new URL('../../build/kernel-digest', import.meta.url));
/** Two compilations of the kernels on a busy machine. */
const BUILD_TIMEOUT = 600_000;

/** Builds kernel_digest.cc with the kernels, and returns its path. */
async function build(target: string, settings: readonly string[] = []): Promise<string> {
  const folder = join(buildFolder, target);
  const generator = runs('ninja') ? ['-G', 'Ninja'] : [];
  const configure = () => run('cmake', ['-S', source, '-B', folder, ...generator, ...settings]);
  try {
    await configure();
  } catch {
    rmSync(folder, { recursive: true, force: true }); // configured for another place or with another generator
    await configure();
  }
  await run('cmake', ['--build', folder, '--parallel', '2'], { maxBuffer: 2 ** 26 });
  return join(folder, 'kernel_digest');
}

/** How to run the program: itself, or an emulator and the program. */
type Command = readonly [program: string, ...args: string[]];

/** The instruction set in use and one line per case. */
async function digest([program, ...args]: Command, limit: string): Promise<{ isa: string; cases: string[] }> {
  const { stdout } = await run(program, [...args, limit], { maxBuffer: 2 ** 24 });
  const [isa, ...cases] = stdout.trimEnd().split('\n');
  return { isa: isa!, cases };
}

async function isaOf([program, ...args]: Command, ...limit: string[]): Promise<string> {
  return (await run(program, [...args, '--isa', ...limit])).stdout.trimEnd();
}

function expectSame(actual: readonly string[], expected: readonly string[], isa: string): void {
  const different = expected.filter((line, i) => line !== actual[i]).map((line) => line.replace(/:.*/, ''));
  expect(different, `cases that ${isa} computes otherwise`).toEqual([]);
  expect(actual.length).toBe(expected.length);
}

const reasonOf = (missing: string | false | undefined): string | null => (missing ? ` (skipped: ${missing})` : null);
const noHost = reasonOf(
  (process.platform === 'win32' && 'no build for Windows') ||
    (!['c++', 'g++', 'clang++'].some(runs) && 'no C++ compiler') ||
    (!runs('cmake') && 'no CMake'),
);
const noEmulator = noHost ?? reasonOf(!runs('qemu-x86_64') && 'no qemu-x86_64');
const noArm =
  noHost ?? reasonOf(!(runs('aarch64-linux-gnu-g++') && runs('qemu-aarch64')) && 'no aarch64 compiler or qemu');

describe.skipIf(noHost)(`kernels of this machine's instruction sets${noHost ?? ''}`, () => {
  const levels = process.arch === 'arm64' ? ['scalar', 'neon', 'i8mm'] : ['scalar', 'avx2', 'avx512'];
  let program: string;
  beforeAll(async () => {
    program = await build('host');
  }, BUILD_TIMEOUT);

  it('compute the bits of the scalar kernels, whole and in parts', async () => {
    const scalar = await digest([program], 'scalar');
    expect(scalar.isa).toBe('scalar');
    expect(scalar.cases.length).toBeGreaterThan(700);
    for (const level of levels) {
      const { isa, cases } = await digest([program], level);
      expectSame(cases, scalar.cases, isa);
    }
  });

  it('are lowered by a limit, never raised', async () => {
    const best = levels.indexOf(await isaOf([program]));
    for (const [i, level] of levels.entries()) {
      expect(await isaOf([program], level)).toBe(levels[Math.min(i, best)]);
    }
    // The other architecture's levels mean the best there is.
    expect(await isaOf([program], process.arch === 'arm64' ? 'avx2' : 'neon')).toBe(levels[best]);
    await expect(isaOf([program], 'best')).rejects.toMatchObject({ code: 2 });
  });

  it.skipIf(process.arch !== 'x64' || noEmulator)(
    `are those the processor has, whatever the limit says${process.arch === 'x64' ? (noEmulator ?? '') : ' (skipped: not on x86-64)'}`,
    async () => {
      for (const [processor, isa] of [
        ['Nehalem', 'scalar'],
        ['max,-fma', 'scalar'],
        ['max,-xsave', 'scalar'],
        ['max', 'avx2'], // qemu 7 knows no AVX-512
      ] as const) {
        expect(await isaOf(['qemu-x86_64', '-cpu', processor, program], 'avx2'), processor).toBe(isa);
      }
      expect(await isaOf(['qemu-x86_64', '-cpu', 'Nehalem', program], 'avx512')).toBe('scalar');
    },
  );
});

describe.skipIf(noArm)(`kernels of 64-bit Arm${noArm ?? ''}`, () => {
  let program: string;
  let host: string;
  beforeAll(async () => {
    host = await build('host');
    program = await build('aarch64', [
      '-DCMAKE_SYSTEM_NAME=Linux',
      '-DCMAKE_SYSTEM_PROCESSOR=aarch64',
      '-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++',
      '-DCMAKE_EXE_LINKER_FLAGS=-static',
    ]);
  }, BUILD_TIMEOUT);

  it('compute the bits of this machine’s kernels, with NEON and without', { timeout: 120_000 }, async () => {
    const expected = await digest([host], 'scalar');
    for (const level of ['i8mm', 'neon', 'scalar']) {
      const { isa, cases } = await digest(['qemu-aarch64', '-cpu', 'max', program], level);
      expect(isa).toBe(level);
      expectSame(cases, expected.cases, `aarch64 ${isa}`);
    }
  });

  it('are those the processor has', async () => {
    expect(await isaOf(['qemu-aarch64', '-cpu', 'cortex-a72', program])).toBe('scalar');
    expect(await isaOf(['qemu-aarch64', '-cpu', 'neoverse-n1', program])).toBe('neon');
    expect(await isaOf(['qemu-aarch64', '-cpu', 'max', program])).toBe('i8mm');
  });
});
