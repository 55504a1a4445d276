import { describe, expect, it } from 'vitest';
import type { Sequence } from '../../src/engine/sequence.js';
import { fakeLoop } from './fake-session.js';
import { ids, prompt, request } from './requests.js';
import { makeScheduler, makeSequence, step } from './steps.js';

/** Sequences in the order in which they end. */
function run(scheduler: ReturnType<typeof makeScheduler>): Sequence[] {
  const order: Sequence[] = [];
  while (!scheduler.isIdle) {
    step(scheduler, (sequence) => order.push(sequence));
    scheduler.checkIntegrity();
  }
  return order;
}

describe('scheduler', () => {
  it('gives those who generate their token first, then prompts up to a budget in order of start', () => {
    const scheduler = makeScheduler({ maxTokens: 20, numBlocks: 64 }, { maxPromptTokensBesideDecode: 6 });
    const [a, b, c] = [1, 16, 16].map((length) => makeSequence(4, length, 9)) as [Sequence, Sequence, Sequence];
    scheduler.add(a);
    step(scheduler);
    scheduler.add(b);
    scheduler.add(c);
    const parts = () => step(scheduler).parts.map(({ sequence, numTokens }) => [sequence, numTokens]);
    expect(parts()).toEqual([
      [a, 1],
      [b, 6],
    ]);
    expect(parts()).toEqual([
      [a, 1],
      [b, 6],
    ]);
    expect(parts()).toEqual([
      [a, 1],
      [b, 4],
      [c, 2],
    ]);
    expect(parts()).toEqual([
      [a, 1],
      [b, 1],
      [c, 6],
    ]);
  });

  it('lets a priority of p wait as if it had come 10 · p seconds later', () => {
    const scheduler = makeScheduler({ maxSequences: 1, maxRows: 1 });
    const late = makeSequence(4, 2, 1, { priority: 1 }, 0);
    const before = makeSequence(4, 2, 1, {}, 9_999);
    const after = makeSequence(4, 2, 1, {}, 10_001);
    const urgent = makeSequence(4, 2, 1, { priority: -1 }, 19_000);
    for (const sequence of [late, before, after, urgent]) scheduler.add(sequence);
    expect(run(scheduler)).toEqual([urgent, before, late, after]);
  });

  it('starts a request of low priority although more urgent ones never cease to come', () => {
    const scheduler = makeScheduler({ maxSequences: 1, maxRows: 1 });
    const low = makeSequence(4, 2, 1, { priority: 2 }, 0);
    scheduler.add(low);
    let ended = -1;
    for (let second = 0; second < 100 && ended < 0; second++) {
      for (let i = 0; i < 2; i++) scheduler.add(makeSequence(4, 1, 1, {}, second * 1000 + i));
      step(scheduler, (sequence) => {
        if (sequence === low) ended = second;
      });
    }
    // Twenty seconds brought forty requests that go first, one a step.
    expect(ended).toBeGreaterThan(19);
    expect(ended).toBeLessThanOrEqual(40);
  });

  it.each(['', 'another'])(
    'starts a request for the whole cache beside endless small ones of tenant "%s"',
    (tenant) => {
      const scheduler = makeScheduler({ numBlocks: 8, maxSequences: 3, maxRows: 3, maxTokens: 8 });
      for (let i = 0; i < 20; i++) scheduler.add(makeSequence(4, 3, 4, { tenant }, i));
      for (let i = 0; i < 10; i++) step(scheduler);
      const large = makeSequence(4, 30, 3, {}, 100);
      scheduler.add(large);
      let steps = 0;
      for (let ended = false; !ended; steps++) {
        if (steps % 2 === 0) scheduler.add(makeSequence(4, 3, 4, { tenant }, 200 + steps));
        step(scheduler, (sequence) => {
          ended ||= sequence === large;
        });
        scheduler.checkIntegrity();
        expect(steps).toBeLessThan(200);
      }
      expect(scheduler.numWaiting).toBeGreaterThan(0);
    },
  );

  it('starts a request with as many answers as there is room for, beside endless single ones', async () => {
    const { loop, session } = fakeLoop();
    let numOthers = 0;
    let over = false;
    const another = (): void => {
      if (over) return;
      numOthers++;
      void ids(loop.submit(request(prompt(2, 7 * numOthers), 3))).then(another);
    };
    for (let i = 0; i < 6; i++) another();
    session.beforeResult = () => new Promise((resolve) => setImmediate(resolve));
    const stream = loop.submit(request(prompt(3), 2, { n: 3 }));
    for await (const _ of stream.parts()); // all three
    over = true;
    expect(session.batches.length).toBeLessThan(40);
  });

  it('preempts who started last, and lets it go on before later ones with what it has said', () => {
    const scheduler = makeScheduler({ numBlocks: 7, maxSequences: 4, maxRows: 4, maxTokens: 12 });
    const [first, second] = [0, 1].map((arrival) => makeSequence(4, 8, 12, {}, arrival)) as [Sequence, Sequence];
    scheduler.add(first);
    scheduler.add(second);
    while (scheduler.numPreemptions === 0) step(scheduler);
    const third = makeSequence(4, 1, 1, {}, 2);
    scheduler.add(third);
    expect(first.numBlocks).toBeGreaterThan(0);
    expect(second.numBlocks).toBe(0);
    const said = second.numGenerated;
    expect(said).toBeGreaterThan(0);
    expect(run(scheduler)).toEqual([first, third, second]); // third is short, but it waits for second to start
    expect(second.numGenerated).toBe(12);
    expect(first.numCachedTokens).toBe(0);
  });

  it('refuses one more than may wait, says so, and takes back those it preempted', () => {
    const scheduler = makeScheduler({ numBlocks: 7, maxTokens: 16 }, { maxWaiting: 2 });
    scheduler.add(makeSequence(4, 8, 12));
    scheduler.add(makeSequence(4, 8, 12));
    expect(() => scheduler.add(makeSequence(4, 1, 1))).toThrow(
      expect.objectContaining({ code: 'QUEUE_FULL', message: expect.stringMatching(/2/) }),
    );
    step(scheduler);
    scheduler.add(makeSequence(4, 27, 1));
    scheduler.add(makeSequence(4, 27, 1));
    while (scheduler.numPreemptions === 0) step(scheduler);
    expect(scheduler.numWaiting).toBe(3);
    expect(run(scheduler)).toHaveLength(4);
  });

  it.each(['logits', 'hidden'] as const)('gives %s of every row what those who generate leave over', (kind) => {
    const scheduler = makeScheduler({ numBlocks: 64, maxTokens: 32, maxRows: 5, maxSequences: 4 });
    const talking = [0, 1].map(() => makeSequence(4, 1, 30));
    for (const sequence of talking) scheduler.add(sequence);
    step(scheduler);
    const wanted = kind === 'logits' ? { kind } : { kind, everyRow: true };
    scheduler.add(makeSequence(4, 20, 0, {}, 0, wanted));
    for (let i = 0; i < 7; i++) {
      const parts = step(scheduler).parts.map(({ numTokens }) => numTokens);
      expect(parts).toEqual([1, 1, i < 6 ? 3 : 2]);
    }
    expect(scheduler.numRunning).toBe(2);
  });

  it('computes a long prompt although others generate all the time', () => {
    const scheduler = makeScheduler({ numBlocks: 64, maxTokens: 8 }, { maxPromptTokensBesideDecode: 2 });
    scheduler.add(makeSequence(4, 1, 60));
    step(scheduler);
    const long = makeSequence(4, 40, 1);
    scheduler.add(long);
    let steps = 0;
    for (; scheduler.numRunning + scheduler.numWaiting > 1; steps++) step(scheduler);
    expect(steps).toBe(20);
    expect(long.numGenerated).toBe(1);
  });
});
