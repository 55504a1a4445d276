import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Engine } from '../../src/library/engine.js';

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** Until a request runs, and `count` steps are done. */
const untilSteps = (engine: Engine, count: number) =>
  until(() => engine.stats().blocks.used > 0 && engine.stats().steps >= count);

const long = Array.from({ length: 1000 }, (_, i) => i % 1000);
const talk = { tokenIds: [1, 2, 3], ignoreEos: true, seed: 1 } as const;

describe.each(['native-cpu', 'reference'] as const)('cancellation on %s', (backend) => {
  const load = () => Engine.load({ backend, contextSize: 1024, batchSize: 2 });
  // What was known when the signal was aborted, and no later than one step after it.
  const expectFree = (engine: Engine, stepsBefore: number) => {
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, blocks: { used: 0 } });
    expect(engine.stats().steps).toBeLessThanOrEqual(stepsBefore + 1);
  };

  it('by a signal frees the blocks within one step, while a token is computed', async () => {
    await using engine = await load();
    const abort = new AbortController();
    const answer = engine.complete({ ...talk, signal: abort.signal });
    await untilSteps(engine, 3);
    expect(engine.stats().blocks.used).toBeGreaterThan(0);
    const { steps } = engine.stats();
    abort.abort();
    expect((await answer).finishReason).toBe('abort');
    expectFree(engine, steps);
  });

  it('in the middle of a prompt frees its blocks within one step', async () => {
    await using engine = await load();
    const abort = new AbortController();
    const answer = engine.complete({ tokenIds: long, maxTokens: 5, signal: abort.signal });
    await untilSteps(engine, 0);
    const { steps, blocks } = engine.stats();
    expect(blocks.used).toBe(Math.ceil(long.length / 16));
    abort.abort();
    const { finishReason, tokenIds, usage } = await answer;
    expect([finishReason, tokenIds, usage.completionTokens]).toEqual(['abort', [], 0]);
    expectFree(engine, steps);
    await sleep(20);
    expect(engine.stats().computedTokens).toBeLessThan(long.length);
  });

  it('by leaving the loop frees the blocks within one step, of all answers', async () => {
    await using engine = await load();
    for await (const { index } of engine.generate({ ...talk, n: 3 })) if (index === 2) break;
    expectFree(engine, engine.stats().steps);
  });

  it('by a deadline frees the blocks, in the middle of a prompt or of the answer', async () => {
    await using engine = await load();
    const start = performance.now();
    const answers = [talk, { tokenIds: long }].map((request) =>
      engine.complete({ ...request, ignoreEos: true, signal: AbortSignal.timeout(10) }),
    );
    for (const { finishReason } of await Promise.all(answers)) expect(finishReason).toBe('abort');
    expect(performance.now() - start).toBeGreaterThan(8);
    expectFree(engine, engine.stats().steps);
  });

  it('of logits and of vectors frees their blocks', async () => {
    await using engine = await load();
    const abort = new AbortController();
    const work = [
      engine.logits(long.slice(0, 300), { signal: abort.signal }),
      engine.embed({ inputs: [long], signal: abort.signal }),
    ];
    const settled = Promise.allSettled(work);
    await untilSteps(engine, 0);
    const { steps } = engine.stats();
    abort.abort();
    for (const result of await settled) expect(result).toMatchObject({ reason: { code: 'ABORTED' } });
    expectFree(engine, steps);
  });

  it('of one leaves the others what they would get alone', async () => {
    await using engine = await load();
    const request = { ...talk, maxTokens: 30 };
    const alone = await engine.complete(request);
    const abort = new AbortController();
    const cut = engine.complete({ tokenIds: long, signal: abort.signal });
    const other = engine.complete(request);
    await untilSteps(engine, 2);
    abort.abort();
    expect((await cut).finishReason).toBe('abort');
    expect((await other).tokenIds).toEqual(alone.tokenIds);
    expect(engine.stats().blocks.used).toBe(0);
  });

  it('of loading at any time leaves nothing behind, and the next one loads', async () => {
    for (const ms of [0, 1, 5, 20, 40]) {
      const loading = Engine.load({ backend, signal: AbortSignal.timeout(ms) });
      await loading.then(
        (engine) => engine.dispose(), // it was faster
        (error) => expect(error).toMatchObject({ code: 'ABORTED' }),
      );
    }
    await using engine = await load();
    expect((await engine.complete({ ...talk, maxTokens: 2 })).tokenIds).toHaveLength(2);
  });
});
