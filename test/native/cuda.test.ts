import { execFile, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const runs = (program: string): boolean => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

const source = fileURLToPath(new URL('./cuda/', import.meta.url));
const buildFolder = fileURLToPath(new URL('../../build/cuda', import.meta.url));
/** A minute of two quiet cores. */
const BUILD_TIMEOUT = 900_000;

const reasonOf = (missing: string | false): string | null => (missing ? ` (skipped: ${missing})` : null);
const noCompiler = reasonOf(
  (process.platform !== 'linux' && 'the emulator is for Linux') ||
    (!['c++', 'g++', 'clang++'].some(runs) && 'no C++ compiler') ||
    (!runs('cmake') && 'no CMake'),
);

/** Builds the programs for the emulator and returns their folder. */
async function build(): Promise<string> {
  const generator = runs('ninja') ? ['-G', 'Ninja'] : [];
  const configure = () => run('cmake', ['-S', source, '-B', buildFolder, ...generator]);
  try {
    await configure();
  } catch {
    rmSync(buildFolder, { recursive: true, force: true }); // configured for another place or with another generator
    await configure();
  }
  await run('cmake', ['--build', buildFolder, '--parallel', '2'], { maxBuffer: 2 ** 26 });
  return buildFolder;
}

describe.skipIf(noCompiler)(`CUDA kernels in the emulator${noCompiler ?? ''}`, { timeout: 300_000 }, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await build();
  }, BUILD_TIMEOUT);

  it('compute what the scalar CPU kernels do, in every order of threads', async () => {
    // Fresh inputs: another seed every day, which the first line of a failure's output names.
    const seed = String(Math.floor(Date.now() / 86_400_000));
    const { stdout } = await run(join(folder, 'cuda_test'), [seed]).catch(
      (error: { stdout: string; stderr: string }) => {
        throw new Error(`cuda_test ${seed}\n${error.stdout}${error.stderr}`);
      },
    );
    const cases = stdout.trimEnd().split('\n');
    expect(cases.at(-1)).toBe('all ok');
    expect(cases.length).toBeGreaterThan(150);
  });

  it.each([
    ['divergent-barrier', 70, 'a barrier that some threads never reach'],
    ['barriers-in-two-places', 70, 'a barrier that some threads never reach'],
    ['divergent-shuffle', 70, 'a warp operation after some lanes have ended'],
    ['read-past-the-end', 70, 'memory out of bounds'],
    ['write-before-the-begin', 70, 'a write outside of an allocation'],
    ['shared-past-the-end', 70, 'memory out of bounds'],
    ['uninitialised-shared', 1, 'nan'],
    ['missing-barrier', 1, 'nan'],
    ['copy-not-waited-for', 1, 'nan'],
    ['copy-misaligned', 70, 'a copy of misaligned memory'],
    ['bytes-that-never-come', 70, 'bytes that never come'],
    ['read-before-waiting', 1, 'result 0 is 0'],
    ['copy-before-waiting', 1, 'result 0 is 0'],
    ['write-before-waiting', 70, 'a write before earlier launches were waited for'],
    ['some-never-wait', 70, 'a thread ends without WaitForEarlierLaunches'],
    ['too-many-arrivals', 70, 'more threads at a barrier than it counts'],
    ['product-not-begun', 70, 'a product whose group was not begun'],
    ['sum-read-early', 1, 'nan'],
    ['sum-written-early', 70, 'a sum that changed before its products were waited for'],
    ['operand-overwritten', 70, 'an operand that changed before its product was waited for'],
    ['shared-overwritten', 1, 'nan'],
    ['wrong-stride', 70, 'a matrix outside of shared memory'],
    ['product-not-waited-for', 70, 'a thread ends with products under way'],
  ] as const)('are found wrong: %s', async (name, code, message) => {
    const error = await run(join(folder, 'wrong_kernels'), [name]).then(
      () => null,
      (reason: { code: number; stderr: string }) => reason,
    );
    expect(error?.code).toBe(code);
    expect(error?.stderr).toContain(message);
  });

  it('are all listed above where they are wrong', async () => {
    const { stdout } = await run(join(folder, 'wrong_kernels'));
    expect(stdout.trimEnd().split('\n')).toHaveLength(23);
  });
});
