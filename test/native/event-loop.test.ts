import { monitorEventLoopDelay } from 'node:perf_hooks';
import { describe, expect, it } from 'vitest';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { slowBatch, slowModel } from '../backend/slow-model.js';
import { temporaryFolder } from '../backend/temporary-folder.js';

const folder = temporaryFolder();

describe.skipIf(notBuilt)(`the event loop${notBuilt ?? ''}`, () => {
  it('stays responsive during long prefills: 99 % of its turns are less than 20 ms late', async () => {
    const model = slowModel(60);
    const session = await nativeCpuBackend({ threads: 1 }).load(model.plan, writeWeights(model, folder), model.limits);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const start = performance.now();
    while (performance.now() - start < 1500) await session.step(slowBatch, { logits: true });
    delay.disable();
    expect(delay.count).toBeGreaterThan(100);
    expect(delay.percentile(99) / 1e6).toBeLessThan(20);
    await session.dispose();
  });
});
