import { execFile, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);
const runs = (program: string): boolean => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

const source = fileURLToPath(new URL('.', import.meta.url));
const buildFolder = fileURLToPath(new URL('../../build/team', import.meta.url));

const reasonOf = (missing: string | false): string | null => (missing ? ` (skipped: ${missing})` : null);
const noCompiler = reasonOf(
  (process.platform === 'win32' && 'no build for Windows') ||
    (!['c++', 'g++', 'clang++'].some(runs) && 'no C++ compiler') ||
    (!runs('cmake') && 'no CMake'),
);

/** Builds team_test.cc and returns its path. */
async function build(name: string, settings: readonly string[] = []): Promise<string> {
  const folder = join(buildFolder, name);
  const configure = () => run('cmake', ['-S', source, '-B', folder, ...settings]);
  try {
    await configure();
  } catch {
    rmSync(folder, { recursive: true, force: true }); // configured for another place
    await configure();
  }
  await run('cmake', ['--build', folder, '--target', 'team_test'], { maxBuffer: 2 ** 26 });
  return join(folder, 'team_test');
}

describe.skipIf(noCompiler)(`the team of threads${noCompiler ?? ''}`, { timeout: 300_000 }, () => {
  const checks = [
    ...Array.from({ length: 24 }, () => /^sums \d threads( oversubscribed)?, \d+ runs of \d+ stages: ok$/),
    /^sums 2 threads, 100000 runs of 2 stages: ok$/,
    /^a helper asleep in its chunk holds up no other: ok$/,
    /^a cancelled run ends: ok$/,
    /^threads are given up and tried again: ok$/,
  ].map((line) => expect.stringMatching(line));

  it('runs every chunk once, in the order of stages, whoever sleeps', async () => {
    const { stdout } = await run(await build('plain'));
    expect(stdout.trimEnd().split('\n')).toEqual(checks);
  });

  it('has no races that ThreadSanitizer sees', async (context) => {
    // A fence of ours is unknown to the sanitizer, which then sees less order than there is.
    const flags = '-DCMAKE_CXX_FLAGS=-O1 -g -fsanitize=thread -Wno-tsan';
    const program = await build('thread-sanitizer', [flags, '-DCMAKE_BUILD_TYPE=Debug']).catch(() => null);
    if (program === null) return context.skip('the compiler has no ThreadSanitizer');
    const { stdout, stderr } = await run(program);
    expect(stderr).toBe('');
    expect(stdout.trimEnd().split('\n')).toEqual(checks);
  });
});
