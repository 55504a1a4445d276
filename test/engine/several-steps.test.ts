import { describe, expect, it } from 'vitest';
import type { LoopOptions } from '../../src/engine/engine-loop.js';
import { expectedTokens, fakeLoop, type limits } from './fake-session.js';
import { answers, ids, penalised, prompt, request } from './requests.js';
import { makeScheduler, makeSequence, step } from './steps.js';

const setUp = (more: Partial<typeof limits> = {}, options: Partial<LoopOptions> = {}) => {
  const { loop, session } = fakeLoop(more, options, 8);
  return { loop, session, numSteps: () => session.batches.map(({ numSteps = 1 }) => numSteps) };
};

describe('several steps in one call', () => {
  it('are as many as the answer still needs, in powers of two', async () => {
    const { loop, numSteps } = setUp();
    expect(await ids(loop.submit(request(prompt(3), 16)))).toEqual(expectedTokens(prompt(3), 16));
    expect(numSteps()).toEqual([1, 8, 4, 2, 1]);
    expect(loop.stats()).toMatchObject({ steps: 16, computedTokens: 18, generatedTokens: 16 });
    loop.checkIntegrity();
  });

  it('are as many as the session and the option allow', async () => {
    const { loop, numSteps } = setUp({}, { maxStepsPerCall: 2 });
    await ids(loop.submit(request(prompt(3), 6)));
    expect(numSteps()).toEqual([1, 2, 2, 1]);
    const single = fakeLoop({}, { maxStepsPerCall: 8 });
    await ids(single.loop.submit(request(prompt(3), 4)));
    expect(single.session.batches.every((batch) => batch.numSteps === undefined)).toBe(true);
  });

  it('are as many as the answer that ends first needs, and serve forks', async () => {
    const { loop, numSteps } = setUp();
    const [long, short] = await Promise.all([
      answers(loop.submit(request(prompt(2), 9, { n: 2 })), 2),
      ids(loop.submit(request(prompt(2, 50), 5))),
    ]);
    expect(long).toEqual([expectedTokens(prompt(2), 9), expectedTokens(prompt(2), 9, 1)]);
    expect(short).toEqual(expectedTokens(prompt(2, 50), 5));
    expect(numSteps()).toEqual([1, 4, 4]);
  });

  it('end with the context', async () => {
    const { loop, numSteps } = setUp({ contextSize: 12 });
    await ids(loop.submit(request(prompt(6), 9))); // whoever asks sees to it that there is room: here is too little
    expect(numSteps()).toEqual([1, 4, 2, 1, 1]);
  });

  it('are none while somebody waits, computes a prompt, or has penalties', async () => {
    const waiting = setUp({ maxSequences: 1 });
    await Promise.all([prompt(2), prompt(2, 9)].map((ids_) => ids(waiting.loop.submit(request(ids_, 9)))));
    expect(waiting.numSteps()).toEqual([...Array(9).fill(1), 1, 8]);

    const besidePrompt = setUp();
    const first = ids(besidePrompt.loop.submit(request(prompt(2), 9)));
    besidePrompt.session.beforeResult = () => {
      besidePrompt.session.beforeResult = () => undefined;
      void ids(besidePrompt.loop.submit(request(prompt(20, 9), 1)));
    };
    await first;
    expect(besidePrompt.numSteps()).toEqual([1, 1, 1, 1, 4, 1]);

    const history = setUp();
    await ids(history.loop.submit(request(prompt(2), 5, { sampling: penalised })));
    expect(history.numSteps()).toEqual([1, 1, 1, 1, 1]);
  });

  it('are none for logits and hidden states', async () => {
    const { loop, numSteps } = setUp();
    await loop.logits(Int32Array.from(prompt(9)));
    await loop.pooled(Int32Array.of(1), 'last');
    expect(new Set(numSteps())).toEqual(new Set([1]));
  });

  it('are fewer where blocks are, and nobody is preempted for them', async () => {
    const { loop, numSteps } = setUp({ numBlocks: 5 }, { prefixCache: false });
    const stopIds = new Set([expectedTokens(prompt(4, 50), 5)[4]!]);
    const [long, short] = await Promise.all([
      ids(loop.submit(request(prompt(4), 9))),
      ids(loop.submit(request(prompt(4, 50), 9, { stopIds }))),
    ]);
    expect(long).toEqual(expectedTokens(prompt(4), 9));
    expect(short).toEqual(expectedTokens(prompt(4, 50), 5));
    // Eight steps would take two blocks more for each, of which there are three.
    expect(numSteps()).toEqual([1, 4, 4]);
    expect(loop.stats().preemptions).toBe(0);
    loop.checkIntegrity();
  });

  it('discard what follows a stop token: it is not streamed, not counted, not found again', async () => {
    const { loop, session, numSteps } = setUp();
    const stop = expectedTokens(prompt(4), 3)[2]!;
    const stream = loop.submit(request(prompt(4), 30, { stopIds: new Set([stop]) }));
    expect(await ids(stream)).toEqual(expectedTokens(prompt(4), 3));
    expect(stream.finishReason).toBe('stop');
    expect(numSteps()).toEqual([1, 8]);
    // The prompt, then the first two tokens; the third one ended it.
    expect(loop.stats()).toMatchObject({ generatedTokens: 3, computedTokens: 6, blocks: { used: 0, cached: 1 } });
    loop.checkIntegrity();
    // A second block was filled in the same call, after the end.
    const longer = [...prompt(4), ...expectedTokens(prompt(4), 8)];
    expect(await ids(loop.submit(request(longer, 1)))).toEqual(expectedTokens(longer, 1));
    expect(loop.stats().prefixCache.hitTokens).toBe(4);
    expect(session.batches.at(-1)!.tokenIds).toHaveLength(8);
  });

  it('free the blocks of an aborted request when their call ends', async () => {
    const { loop, session, numSteps } = setUp();
    const abort = new AbortController();
    session.beforeResult = () => {
      if (numSteps().at(-1)! > 1) abort.abort();
    };
    const stream = loop.submit(request(prompt(3), 30, { signal: abort.signal }));
    const other = ids(loop.submit(request(prompt(3, 50), 12)));
    expect(await ids(stream)).toEqual(expectedTokens(prompt(3), 1));
    expect(stream.finishReason).toBe('abort');
    expect(await other).toEqual(expectedTokens(prompt(3, 50), 12));
    expect(numSteps()).toEqual([1, 8, 2, 1]);
    expect(loop.stats().blocks.used).toBe(0);
    loop.checkIntegrity();
  });

  it('keep a new request waiting for one call at most', async () => {
    const { loop, session, numSteps } = setUp();
    let late: Promise<number[]> | null = null;
    session.beforeResult = () => {
      if (numSteps().length === 2) late = ids(loop.submit(request(prompt(3, 50), 2)));
    };
    await ids(loop.submit(request(prompt(3), 30)));
    expect(await late).toEqual(expectedTokens(prompt(3, 50), 2));
    expect(session.batches[2]!.contextLens).toHaveLength(2);
  });

  it('are charged to the tenant as they are taken', () => {
    const scheduler = makeScheduler({ maxSequences: 1 }, { maxSteps: 8 });
    const sequence = makeSequence(4, 4, 20, { tenant: 'a' });
    scheduler.add(sequence);
    step(scheduler);
    const { numSteps } = scheduler.schedule();
    expect(numSteps).toBe(8);
    expect(sequence.numChargedTokens).toBe(5);
    for (let taken = 1; taken <= 3; taken++) {
      scheduler.advance(sequence, 1);
      sequence.append(1);
      expect(sequence.numChargedTokens).toBe(4 + taken);
    }
    scheduler.remove(sequence);
    scheduler.checkIntegrity();
  });
});
