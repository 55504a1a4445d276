import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { notBuilt } from '../backend/native-availability.js';

/**
 * V8 takes its time to find out how large its young generation should be; here it is small from the start. The C library
 * keeps freed memory in arenas; here it has one, and gives back what is large.
 */
const flags = ['--expose-gc', '--max-semi-space-size=1'];
const env = { ...process.env, MALLOC_ARENA_MAX: '1', MALLOC_MMAP_THRESHOLD_: '65536' };
const script = fileURLToPath(new URL('load-and-dispose.mjs', import.meta.url));

/** Resident set after 50 cycles over that after 5. */
async function growth(when: string): Promise<number> {
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, when], { env });
  const [after5, after50] = JSON.parse(stdout) as [number, number];
  return after50 / after5;
}

describe.skipIf(notBuilt)(`dispose${notBuilt ?? ''}`, () => {
  it.each(['answered', 'answering', 'loading'])(
    'frees everything: after 50 engines that were %s a process is as large as after 5',
    async (when) => {
      // A leak is there every time, what the system does with pages is not.
      const tries = [await growth(when)];
      while (tries.at(-1)! >= 1.05 && tries.length < 4) tries.push(await growth(when));
      expect(Math.min(...tries), `${tries}`).toBeLessThan(1.05);
    },
    240_000,
  );
});
