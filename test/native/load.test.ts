import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { openModel } from '../../src/formats/hub.js';
import { Engine } from '../../src/library/engine.js';
import { sessionLimits, typesAtLoad } from '../../src/library/load-options.js';
import { loadModel } from '../../src/model/load.js';
import { memoryPlan } from '../../src/model/memory.js';
import { writeSyntheticModel } from '../../src/synthetic/model.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { expectEngineError } from '../formats/engine-error.js';

const compiled = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
const script = fileURLToPath(new URL('measure-peak.mjs', import.meta.url));
const skipped =
  notBuilt ??
  (process.platform === 'linux' ? null : ' (skipped: memory and threads are read from /proc)') ??
  (existsSync(compiled) ? null : ' (skipped: dist/ is not built, run npm run build:ts)');

const folder = temporaryFolder();
const models = { q4_0: join(folder, 'q4_0.gguf'), q8_0: join(folder, 'q8_0.gguf') };

async function planOf(path: string, quantize: 'none' | 'int4') {
  const types = typesAtLoad({ quantize });
  const model = loadModel(await openModel(path), { activations: 'q8', ...(types && { quantise: types }) });
  return { model, limits: sessionLimits({}, model.config) };
}

const numThreads = (): number => readdirSync('/proc/self/task').length;

/** Waits for threads that are about to end. */
async function expectThreadsAtMost(count: number): Promise<void> {
  for (let i = 0; i < 100 && numThreads() > count; i++) await setTimeout(10);
  expect(numThreads()).toBeLessThanOrEqual(count);
}

describe.skipIf(skipped)(`loading a model of 110 million weights${skipped ?? ''}`, () => {
  beforeAll(async () => {
    for (const type of ['q4_0', 'q8_0'] as const) await writeSyntheticModel(models[type], { shape: '110m', type });
  }, 60_000);

  it.each([
    ['q4_0', 'none'],
    ['q8_0', 'none'],
    ['q8_0', 'int4'],
  ] as const)(
    '%s, --quantize %s: packed weights and those they are made from are never in memory together',
    async (type, quantize) => {
      const { model, limits } = await planOf(models[type], quantize);
      const peak = Number(execFileSync(process.execPath, [script, models[type], quantize], { encoding: 'utf8' }));
      // Node itself with the tokenizer takes 80 to 90 MB; a second copy of the weights would be 70 MB or more.
      expect(peak).toBeLessThan(memoryPlan(model, limits).total + 100e6);
    },
    60_000,
  );

  it('an abort while weights are quantised frees all memory and threads', async () => {
    const { model, limits } = await planOf(models.q8_0, 'int4');
    const loadFor = async (milliseconds: number) => {
      const load = nativeCpuBackend({ threads: 3 }).load(
        model.plan,
        model.weights,
        limits,
        AbortSignal.timeout(milliseconds),
      );
      await expectEngineError(() => load, 'ABORTED');
    };
    await loadFor(10);
    const before = { rss: process.memoryUsage().rss, threads: numThreads() };
    for (let i = 1; i <= 8; i++) await loadFor(10 * i);
    await expectThreadsAtMost(before.threads);
    // One load has copies of 65 MB.
    expect(process.memoryUsage().rss - before.rss).toBeLessThan(48e6);
  }, 60_000);

  it('what else is wrong with a model ends the loading of its weights', async () => {
    const threads = numThreads();
    const options = { model: models.q8_0, quantize: 'int4', backend: 'native-cpu' } as const;
    await expectEngineError(() => Engine.load({ ...options, chatTemplate: '/nowhere.jinja' }), 'FILE_NOT_FOUND');
    await expectThreadsAtMost(threads);
  }, 60_000);
});
