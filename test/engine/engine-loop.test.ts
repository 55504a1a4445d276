import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { stepTokenBounds } from '../../src/engine/engine-stats.js';
import { expectedTokens, fakeLoop, VOCAB } from './fake-session.js';
import { ids, prompt, request } from './requests.js';

const setUp = () => fakeLoop();

describe('engine loop', () => {
  it('gives a request its tokens and ends with reason length', async () => {
    const { loop } = setUp();
    const stream = loop.submit(request(prompt(3), 5));
    expect(await ids(stream)).toEqual(expectedTokens(prompt(3), 5));
    expect(stream.finishReason).toBe('length');
    loop.checkIntegrity();
  });

  it('cuts a long prompt into steps within the token budget', async () => {
    const { loop, session } = setUp();
    expect(await ids(loop.submit(request(prompt(20), 2)))).toEqual(expectedTokens(prompt(20), 2));
    expect(session.batches.map((batch) => batch.tokenIds.length)).toEqual([8, 8, 4, 1]);
    const { steps, stepsByTokens, computedTokens } = loop.stats();
    expect(stepsByTokens).toEqual(stepTokenBounds.map((bound) => ({ 1: 1, 8: 3 })[bound as number] ?? 0).concat(0));
    expect({ steps, computedTokens }).toEqual({ steps: 4, computedTokens: 21 });
  });

  it('gives each of many requests the tokens it would get alone', async () => {
    const { loop } = setUp();
    const prompts = Array.from({ length: 12 }, (_, i) => prompt(1 + ((i * 5) % 13), 10 * i));
    const streams = prompts.map((promptIds, i) => loop.submit(request(promptIds, 1 + (i % 6))));
    const results = await Promise.all(streams.map(ids));
    results.forEach((tokens, i) => {
      expect(tokens).toEqual(expectedTokens(prompts[i]!, 1 + (i % 6)));
    });
    loop.checkIntegrity();
  });

  it('runs requests together while blocks last', async () => {
    const { loop, session } = setUp();
    await Promise.all([ids(loop.submit(request(prompt(2), 4))), ids(loop.submit(request(prompt(2, 50), 4)))]);
    expect(Math.max(...session.batches.map((batch) => batch.contextLens.length))).toBe(2);
  });

  it('ends at a stop token, which is part of the answer', async () => {
    const { loop } = setUp();
    const stop = expectedTokens(prompt(4), 3)[2]!;
    const stream = loop.submit(request(prompt(4), 10, { stopIds: new Set([stop]) }));
    expect(await ids(stream)).toEqual(expectedTokens(prompt(4), 3));
    expect(stream.finishReason).toBe('stop');
  });

  it('frees the blocks of an aborted request within one step, in the middle of its prompt', async () => {
    const { loop, session } = setUp();
    const abort = new AbortController();
    session.beforeResult = () => abort.abort();
    const stream = loop.submit(request(prompt(30), 2, { signal: abort.signal }));
    expect(await ids(stream)).toEqual([]);
    expect(stream.finishReason).toBe('abort');
    await new Promise((resolve) => setImmediate(resolve));
    expect(session.batches.length).toBe(1);
    loop.checkIntegrity();
    session.beforeResult = () => undefined;
    expect(await ids(loop.submit(request(prompt(60), 4)))).toHaveLength(4); // needs every block
  });

  it('ends at once when the signal was aborted before', async () => {
    const { loop, session } = setUp();
    const stream = loop.submit(request(prompt(3), 2, { signal: AbortSignal.abort() }));
    expect(await ids(stream)).toEqual([]);
    expect(stream.finishReason).toBe('abort');
    expect(session.batches).toHaveLength(0);
  });

  it('cancels a request whose reader leaves the loop', async () => {
    const { loop } = setUp();
    for await (const token of loop.submit(request(prompt(2), 50))) {
      expect(token.id).toBe(expectedTokens(prompt(2), 1)[0]);
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
    loop.checkIntegrity();
    expect(await ids(loop.submit(request(prompt(60), 4)))).toHaveLength(4);
  });

  it('leaves nothing on a signal that outlives its requests, however they end', async () => {
    const { loop } = setUp();
    const { signal } = new AbortController();
    for await (const _ of loop.submit(request(prompt(2), 50, { signal }))) break;
    await ids(loop.submit(request(prompt(2), 3, { signal })));
    await loop.logits(Int32Array.of(1, 2), { signal });
    await loop.dispose();
    expect(() => loop.submit(request(prompt(2), 3, { signal }))).toThrow('disposed');
    await expect(loop.logits(Int32Array.of(1, 2), { signal })).rejects.toThrow('disposed');
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('collects the logits of every prompt token, over several steps and beside other requests', async () => {
    const { loop } = setUp();
    const other = ids(loop.submit(request(prompt(5), 9)));
    const logits = await loop.logits(Int32Array.from(prompt(11)));
    expect(logits.length).toBe(11 * VOCAB);
    for (let i = 0; i < 11; i++) expect(logits[i * VOCAB + 3]).toBe(i + 1);
    expect(await other).toEqual(expectedTokens(prompt(5), 9));
    loop.checkIntegrity();
  });

  it('rejects a request for more logits than fit into memory', async () => {
    const { loop } = fakeLoop({}, { vocabSize: 2 ** 50 });
    await expect(loop.logits(Int32Array.of(1, 2))).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
  });

  it('takes a request that is made the moment the last one ends', async () => {
    const { loop } = setUp();
    await loop.logits(Int32Array.of(1, 2));
    expect(await ids(loop.submit(request(prompt(3), 2)))).toEqual(expectedTokens(prompt(3), 2));
  });

  it('fails every request when a step fails, and goes on with the next ones', async () => {
    const { loop, session } = setUp();
    session.beforeResult = () => {
      throw new Error('device lost');
    };
    const streams = [loop.submit(request(prompt(3), 2)), loop.submit(request(prompt(3), 2))];
    for (const stream of streams) await expect(ids(stream)).rejects.toThrow('device lost');
    loop.checkIntegrity();
    expect(loop.stats().failing).toEqual({ steps: 1, lastError: new Error('device lost') });
    session.beforeResult = () => undefined;
    expect(await ids(loop.submit(request(prompt(3), 2)))).toEqual(expectedTokens(prompt(3), 2));
    expect(loop.stats().failing).toBeNull();
  });

  it('rejects what runs and what comes after dispose', async () => {
    const { loop, session } = setUp();
    const stream = loop.submit(request(prompt(3), 20));
    const tokens = ids(stream);
    await loop.dispose();
    await expect(tokens).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(() => loop.submit(request(prompt(3), 2))).toThrow('disposed');
    expect(session.disposed).toBe(true);
  });
});
