import { execFile, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { notBuilt } from '../backend/native-availability.js';

const run = promisify(execFile);
const runs = (program: string): boolean => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

const source = fileURLToPath(new URL('cuda_session', import.meta.url));
const folder = fileURLToPath(new URL('../../build/cuda-emulated', import.meta.url));

/** For a test's name: why tests of sessions on an emulated GPU are skipped; null where they run. */
export const noEmulatedCuda =
  notBuilt ??
  (process.platform === 'win32'
    ? ' (skipped: no build for Windows)'
    : process.arch !== 'x64'
      ? ' (skipped: the emulator is for x86-64)'
      : !['c++', 'g++', 'clang++'].some(runs) || !runs('cmake')
        ? ' (skipped: no CMake or C++ compiler)'
        : null);

/** Compiling all kernels on a busy machine. */
export const BUILD_TIMEOUT = 600_000;

/** Builds the library with the kernels for the emulator, and returns its path. */
export async function buildEmulatedCuda(): Promise<string> {
  const generator = runs('ninja') ? ['-G', 'Ninja'] : [];
  const configure = () => run('cmake', ['-S', source, '-B', folder, ...generator]);
  try {
    await configure();
  } catch {
    rmSync(folder, { recursive: true, force: true }); // configured for another place or with another generator
    await configure();
  }
  await run('cmake', ['--build', folder, '--parallel', '2'], { maxBuffer: 2 ** 26 });
  return join(folder, 'engine_cuda_emulated.so');
}
