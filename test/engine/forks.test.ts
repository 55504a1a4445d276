import { describe, expect, it } from 'vitest';
import { expectedTokens, fakeLoop } from './fake-session.js';
import { answers, prompt, request } from './requests.js';

const large = { maxTokens: 64, maxRows: 16, maxSequences: 8, numBlocks: 64, contextSize: 256 };
const expected = (promptIds: number[], count: number, n: number) =>
  Array.from({ length: n }, (_, choice) => expectedTokens(promptIds, count, choice));

describe('several answers to a prompt', () => {
  it('are those of requests by themselves, and the prompt is computed once', async () => {
    const { loop } = fakeLoop(large);
    expect(await answers(loop.submit(request(prompt(10), 6, { n: 4 })), 4)).toEqual(expected(prompt(10), 6, 4));
    expect(loop.stats()).toMatchObject({ computedTokens: 10 + 4 * 5, generatedTokens: 24, blocks: { used: 0 } });
    loop.checkIntegrity();
  });

  it.each([
    { length: 10, maxTokens: 6, copies: 3, why: 'all but the last write into one they share' },
    { length: 8, maxTokens: 6, copies: 0, why: 'they share whole blocks' },
    { length: 10, maxTokens: 1, copies: 0, why: 'nothing is written' },
  ])(
    'copy $copies blocks after a prompt of $length tokens and $maxTokens more: $why',
    async ({ length, maxTokens, copies }) => {
      const { loop, session } = fakeLoop(large);
      const stream = loop.submit(request(prompt(length), maxTokens, { n: 4 }));
      expect(await answers(stream, 4)).toEqual(expected(prompt(length), maxTokens, 4));
      expect(session.copies).toHaveLength(copies);
    },
  );

  it('share their prompt: blocks are needed for it once', async () => {
    const { loop, session } = fakeLoop(large);
    let used = 0;
    session.beforeResult = () => {
      used = Math.max(used, loop.stats().blocks.used);
    };
    await answers(loop.submit(request(prompt(40), 4, { n: 8 })), 8);
    expect(used).toBe(40 / 4 + 8);
  });

  it('survive preemption, are counted in the statistics once and charged once', async () => {
    const { loop } = fakeLoop({ ...large, numBlocks: 12 });
    const stream = loop.submit(request(prompt(9), 30, { n: 4 }));
    expect(await answers(stream, 4)).toEqual(expected(prompt(9), 30, 4));
    expect(loop.stats().preemptions).toBeGreaterThan(0);
    expect(loop.stats().prefixCache).toMatchObject({ queriedTokens: 9, hitTokens: 0 });
    loop.checkIntegrity();
  });

  it('end one by one', async () => {
    const { loop, session } = fakeLoop({ ...large, maxTokens: 4 });
    session.beforeResult = () => new Promise((resolve) => setImmediate(resolve));
    const stream = loop.submit(request(prompt(10), 9, { n: 3 }));
    const got: number[][] = [[], [], []];
    for await (const { choice, tokens } of stream.parts()) {
      got[choice]!.push(...tokens.map(({ id }) => id));
      if (choice === 1 && got[1]!.length === 3) stream.cancel(1);
    }
    expect([0, 2].map((choice) => got[choice])).toEqual([0, 2].map((choice) => expectedTokens(prompt(10), 9, choice)));
    expect(got[1]!.length).toBeLessThan(5);
    expect([0, 1, 2].map((choice) => stream.finishReasonOf(choice))).toEqual(['length', 'stop', 'length']);
    expect(loop.stats().blocks.used).toBe(0);
  });

  it.each([0, 1, 2])(
    'do not begin without answer %i if it is cancelled before the prompt is computed',
    async (choice) => {
      const { loop, session } = fakeLoop({ ...large, maxTokens: 4 });
      session.beforeResult = () => {
        if (session.batches.length === 2) stream.cancel(choice);
      };
      const stream = loop.submit(request(prompt(10), 9, { n: 3 }));
      const wanted = expected(prompt(10), 9, 3);
      wanted[choice] = [];
      expect(await answers(stream, 3)).toEqual(wanted);
      expect(loop.stats()).toMatchObject({ computedTokens: 10 + 2 * 8, blocks: { used: 0 } });
      loop.checkIntegrity();
    },
  );

  it('are given up when all are cancelled in the middle of the prompt', async () => {
    const { loop, session } = fakeLoop({ ...large, maxTokens: 4 });
    session.beforeResult = () => {
      for (const choice of [1, 0]) stream.cancel(choice);
    };
    const stream = loop.submit(request(prompt(10), 9, { n: 2 }));
    expect(await answers(stream, 2)).toEqual([[], []]);
    expect(loop.stats()).toMatchObject({ steps: 1, running: 0, blocks: { used: 0 } });
    loop.checkIntegrity();
  });
});
