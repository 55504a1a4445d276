import { readdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { type OpCase, writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const folder = temporaryFolder();
const small = tinyLlama('memory', 'q4_0', 'q8', 'f32');
/** 128 MiB of KV cache, of which a step touches little. */
const model: OpCase = { ...small, limits: { ...small.limits, blockSize: 2 ** 10, numBlocks: 2 ** 8 } };
const weights = writeWeights(model, folder);
const batch = { ...schedules['in one prefill']![0]!, blockTables: new Int32Array(1) };

const load = () => nativeCpuBackend({ threads: 2 }).load(model.plan, weights, model.limits);

/** Threads of this process, where that can be known. */
const numThreads = (): number => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0);

describe.skipIf(notBuilt)(`memory and threads of native sessions${notBuilt ?? ''}`, () => {
  it('are back where they were after 50 sessions', async () => {
    const cycle = async () => {
      const session = await load();
      for (let i = 0; i < 3; i++) await session.step(batch, { logits: true });
      await session.dispose();
    };
    for (let i = 0; i < 5; i++) await cycle();
    collectGarbage();
    const before = { ...process.memoryUsage(), threads: numThreads() };
    for (let i = 0; i < 50; i++) await cycle();
    collectGarbage();
    const after = { ...process.memoryUsage(), threads: numThreads() };
    expect(after.threads).toBe(before.threads);
    expect(after.external - before.external).toBeLessThan(2 ** 20);
    expect(after.rss - before.rss).toBeLessThan(16 * 2 ** 20);
  });

  it('are given back when a session is collected without dispose()', async () => {
    const before = numThreads();
    for (let i = 0; i < 5; i++) await (await load()).step(batch);
    for (let i = 0; i < 50 && numThreads() > before; i++) {
      collectGarbage();
      await setTimeout(10);
    }
    expect(numThreads()).toBe(before);
  });

  it('make V8 collect sessions that nobody holds any more', async () => {
    const before = numThreads();
    for (let i = 0; i < 40; i++) {
      await (await load()).step(batch);
      await setTimeout(1);
    }
    // 5 GiB were abandoned, in small JavaScript objects.
    expect(numThreads() - before).toBeLessThan(40);
  });
});
