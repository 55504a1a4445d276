import { spawn } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Session } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { batchOf, writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { slowModel } from '../backend/slow-model.js';
import { temporaryFolder } from '../backend/temporary-folder.js';

const folder = temporaryFolder();
/** One token through 40 matrices of 4 MB: some milliseconds, some tens of microseconds for each stage. */
const model = slowModel(40);
const token = batchOf([{ start: 0, count: 1, blocks: [0], tokenIds: [7], wanted: [0] }]);

/** A measurement of time: needs a machine that does nothing else. */
const load = loadavg()[0]!;
const skipped =
  notBuilt ??
  (availableParallelism() < 2 ? ' (skipped: one processor)' : null) ??
  (process.platform === 'win32' ? ' (skipped: no sh)' : null) ??
  (load > 0.5 ? ` (skipped: the machine is busy, load ${load.toFixed(1)})` : null);

/** Steps per second during this time, in milliseconds. */
async function rate(session: Session, time: number): Promise<number> {
  const begin = performance.now();
  let steps = 0;
  do {
    await session.step(token);
    steps++;
  } while (performance.now() - begin < time);
  return (1000 * steps) / (performance.now() - begin);
}

describe.skipIf(skipped)(`two threads beside a busy loop${skipped ?? ''}`, () => {
  it('keep half of their speed', { retry: 2, timeout: 30_000 }, async () => {
    const session = await nativeCpuBackend({ threads: 2 }).load(model.plan, writeWeights(model, folder), model.limits);
    await rate(session, 200);
    const quiet = await rate(session, 500);
    const neighbour = spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' });
    try {
      await setTimeout(100);
      const busy = await rate(session, 1500);
      // One thread has half the speed; what trying two again and again costs is tolerated.
      expect(busy / quiet).toBeGreaterThan(0.45);
    } finally {
      neighbour.kill();
      await session.dispose();
    }
  });
});
