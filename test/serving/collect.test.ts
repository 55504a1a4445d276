import { expect, it } from 'vitest';
import { type CompletionEvent, collect } from '../../src/serving/completer.js';

const outcome = {
  finishReason: 'stop',
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
  timings: { queueMs: 0, ttftMs: 0, prefillTokensPerSecond: 0, decodeTokensPerSecond: 0, totalMs: 0 },
} as const;

async function* eventsOf(...events: CompletionEvent[]): AsyncGenerator<CompletionEvent> {
  yield* events;
}

it('whole answers are told apart by index, in whatever order their events come', async () => {
  const events = eventsOf(
    { index: 1, text: 'b', tokenIds: [2] },
    { index: 0, text: 'a', tokenIds: [1], outcome },
    { index: 1, text: 'c', tokenIds: [3], outcome },
  );
  expect(await collect(events)).toMatchObject([
    { text: 'a', tokenIds: [1] },
    { text: 'bc', tokenIds: [2, 3] },
  ]);
});

it('an event may bring very many tokens: a reader was slow', async () => {
  const tokenIds = Array.from({ length: 300_000 }, (_, i) => i);
  const [answer] = await collect(eventsOf({ index: 0, text: '', tokenIds, outcome }));
  expect(answer!.tokenIds).toHaveLength(300_000);
});

it('an answer without an end is a fault of ours', async () => {
  await expect(collect(eventsOf({ index: 0, text: 'a', tokenIds: [1] }))).rejects.toMatchObject({ code: 'INTERNAL' });
});
