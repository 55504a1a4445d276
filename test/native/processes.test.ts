import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { serialize } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { type OpCase, writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { slowBatch, slowModel } from '../backend/slow-model.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';

const stepper = fileURLToPath(new URL('stepper.mjs', import.meta.url));
const compiled = fileURLToPath(new URL('../../dist/backend/native.js', import.meta.url));
const skipped = notBuilt ?? (existsSync(compiled) ? null : ' (skipped: dist/ is not built, run npm run build:ts)');

const folder = temporaryFolder();

const jobOf = (model: OpCase, batch: Batch, numSteps: number) => ({
  plan: model.plan,
  weights: writeWeights(model, folder),
  limits: model.limits,
  batch,
  numSteps,
});
const short = jobOf(tinyLlama('processes', 'q4_0', 'q8', 'f16'), schedules['in one prefill']![0]!, 50);
/** Takes a second or more. */
const long = jobOf(slowModel(100), slowBatch, 1);

type Job = typeof short;

async function run(job: Job, manner: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const file = join(folder, 'job.bin');
  writeFileSync(file, serialize(job));
  return await new Promise((resolve) => {
    const child = execFile(process.execPath, [stepper, file, manner], (_, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

const startWorker = (job: Job, manner: string): Worker => new Worker(stepper, { workerData: { job, manner } });

describe.skipIf(skipped)(`native sessions and the end of things${skipped ?? ''}`, () => {
  it('a process ends by itself with an idle session that was never disposed', async () => {
    expect(await run(short, 'one step, no dispose')).toEqual({ code: 0, stdout: 'stepped\n', stderr: '' });
  });

  it('a process stays alive until its last step is done', async () => {
    expect(await run(long, 'leave a step pending')).toEqual({ code: 0, stdout: 'stepped\n', stderr: '' });
  });

  it('process.exit() ends a process at once, with its code, while a step runs', async () => {
    expect(await run(long, 'exit in flight')).toEqual({ code: 7, stdout: '', stderr: '' });
  });

  it('an uncaught exception ends a process as usual while a step runs', async () => {
    const { code, stderr } = await run(long, 'throw in flight');
    expect(code).toBe(1);
    expect(stderr).toContain('thrown with a step in flight');
  });

  it('two worker threads run sessions at once, with the results of one', async () => {
    const session = await nativeCpuBackend().load(short.plan, short.weights, short.limits);
    const { logits } = await session.step(short.batch, { logits: true });
    await session.dispose();
    const workers = [startWorker(short, 'steps then dispose'), startWorker(short, 'steps then dispose')];
    const results = await Promise.all(
      workers.map(async (worker) => {
        const [[message], [code]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')]);
        return { message, code };
      }),
    );
    for (const result of results) expect(result).toEqual({ message: logits, code: 0 });
  });

  it('a worker thread can be terminated while a step runs and another waits', async () => {
    const session = await nativeCpuBackend().load(short.plan, short.weights, short.limits);
    for (let i = 0; i < 3; i++) {
      const worker = startWorker(long, 'wait to be terminated');
      await once(worker, 'message');
      await setTimeout(10 * i);
      expect(await worker.terminate()).toBe(1);
    }
    // The other environment is untouched.
    expect((await session.step(short.batch)).tokens.length).toBe(29);
    await session.dispose();
  });

  it('a worker thread ends by itself with an idle session', async () => {
    const worker = startWorker(short, 'one step, no dispose');
    expect(await once(worker, 'exit')).toEqual([0]);
  });
});
