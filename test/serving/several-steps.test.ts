import { expect, it } from 'vitest';
import { collect, TextCompleter } from '../../src/serving/completer.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { expectedTokens, fakeLoop } from '../engine/fake-session.js';
import { prompt } from '../engine/requests.js';

/** Tokens are written as their numbers. */
const tokenizer: Pick<Tokenizer, 'stream' | 'eosIds'> = {
  eosIds: [],
  stream: () => {
    const push = (ids: ArrayLike<number>): string => Array.prototype.map.call(ids, (id) => `<${id}>`).join('');
    return { push, flush: () => '' } as ReturnType<Tokenizer['stream']>;
  },
};

it('a stop string ends an answer at the same token, however many come at once', async () => {
  const promptIds = prompt(3);
  const [first, second, third] = expectedTokens(promptIds, 3);
  const answers = [];
  for (const maxStepsPerCall of [1, 8]) {
    const { loop } = fakeLoop({}, { maxStepsPerCall }, 8);
    const completer = new TextCompleter(loop, tokenizer as Tokenizer, null, '');
    const request = { tokenIds: promptIds, maxTokens: 40, stop: [`${third}>`] };
    const [{ timings: _, ...answer } = { timings: null }] = await collect(completer.generate(request));
    answers.push(answer);
    await new Promise((resolve) => setImmediate(resolve)); // the call that runs
    loop.checkIntegrity();
    expect(loop.stats().blocks.used).toBe(0);
  }
  expect(answers[0]).toMatchObject({
    text: `<${first}><${second}><`,
    tokenIds: [first, second, third],
    finishReason: 'stop',
    usage: { completionTokens: 3 },
  });
  expect(answers[1]).toEqual(answers[0]);
});
