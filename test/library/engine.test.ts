import { describe, expect, it } from 'vitest';
import { Engine } from '../../src/library/engine.js';

const prompt = 'Once upon a time there was a king who';

describe.each(['native-cpu', 'reference'] as const)('Engine on %s', (backend) => {
  it('streams what complete returns, and both with the same seed', async () => {
    await using engine = await Engine.load({ backend });
    const request = { prompt, maxTokens: 16, seed: 5 };
    const whole = await engine.complete(request);
    let text = '';
    const tokenIds: number[] = [];
    for await (const event of engine.generate(request)) {
      text += event.text;
      tokenIds.push(...event.tokenIds);
    }
    expect(text).toBe(whole.text);
    expect(tokenIds).toEqual(whole.tokenIds);
    expect(whole.tokenIds).toHaveLength(16);
    expect(engine.tokenizer.decode([...whole.promptTokenIds, ...whole.tokenIds])).toBe(prompt + whole.text);
  });

  it('gives each of several requests at once the tokens it gets alone', async () => {
    await using engine = await Engine.load({ backend, contextSize: 256, batchSize: 4 });
    const requests = ['The fox', 'A king and his daughter', 'In the wood', 'Far away'].map((text, i) => ({
      prompt: text,
      maxTokens: 10 + i,
      seed: i,
    }));
    const alone = [];
    for (const request of requests) alone.push((await engine.complete(request)).tokenIds);
    const together = await Promise.all(requests.map((request) => engine.complete(request)));
    expect(together.map(({ tokenIds }) => tokenIds)).toEqual(alone);
  });

  it('gives the logits of every token, in one call or as the context grows', async () => {
    await using engine = await Engine.load({ backend, contextSize: 128 });
    const ids = engine.tokenizer.encode(prompt);
    const { vocabSize } = engine.model;
    const all = await engine.logits(ids);
    expect(all).toHaveLength(ids.length * vocabSize);
    const first = await engine.logits(ids.subarray(0, 3));
    expect(first).toEqual(all.subarray(0, 3 * vocabSize));
    const last = all.subarray((ids.length - 1) * vocabSize);
    const { tokenIds } = await engine.complete({ tokenIds: ids, maxTokens: 1, temperature: 0 });
    expect(tokenIds[0]).toBe(last.indexOf(Math.max(...last)));
  });

  it('keeps the event loop free while it computes', async () => {
    await using engine = await Engine.load({ backend, threads: 1 });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const { timings } = await engine.complete({ prompt: 'word '.repeat(400), maxTokens: 2 });
    clearInterval(timer);
    // A turn every 20 ms is far from one a millisecond, and even further from none.
    expect(turns).toBeGreaterThan(timings.totalMs / 20);
  });

  it('ends a request when its signal is aborted, and can go on with the next', async () => {
    await using engine = await Engine.load({ backend });
    const abort = new AbortController();
    const cut = await engine.complete({ prompt, ignoreEos: true, signal: abort.signal }, ({ tokenIds }) => {
      if (tokenIds.length > 0) abort.abort();
    });
    expect(cut.finishReason).toBe('abort');
    expect(cut.tokenIds.length).toBeLessThan(20);
    expect((await engine.complete({ prompt, maxTokens: 3 })).finishReason).toBe('length');
  });

  it('fills the context and stops there', async () => {
    await using engine = await Engine.load({ backend, contextSize: 24 });
    const { usage, finishReason } = await engine.complete({ prompt, ignoreEos: true });
    expect(usage.promptTokens + usage.completionTokens).toBe(24);
    expect(finishReason).toBe('length');
    await expect(engine.complete({ prompt: prompt.repeat(4) })).rejects.toMatchObject({ code: 'PROMPT_TOO_LONG' });
  });

  it('gives logits for a whole context, and no more', async () => {
    await using engine = await Engine.load({ backend, contextSize: 20 });
    const ids = Array.from({ length: 21 }, (_, i) => 100 + i);
    expect(await engine.logits(ids.slice(1))).toHaveLength(20 * engine.model.vocabSize);
    await expect(engine.logits(ids)).rejects.toMatchObject({ code: 'PROMPT_TOO_LONG' });
  });

  it('refuses wrong requests without harm to others', async () => {
    await using engine = await Engine.load({ backend });
    await expect(engine.complete({ prompt: '' })).rejects.toMatchObject({ code: 'PROMPT_EMPTY' });
    await expect(engine.complete({ tokenIds: [1, -1] })).rejects.toMatchObject({ code: 'TOKEN_ID_INVALID' });
    await expect(engine.complete({ tokenIds: [1, 4096] })).rejects.toMatchObject({ code: 'TOKEN_ID_INVALID' });
    await expect(engine.complete({})).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    await expect(engine.complete({ prompt, maxTokens: 1.5 })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    await expect(engine.complete({ prompt, temperature: Number.NaN })).rejects.toMatchObject({
      code: 'OPTION_INVALID',
    });
    expect((await engine.complete({ prompt, maxTokens: 3 })).tokenIds).toHaveLength(3);
  });

  it('refuses numbers of steps that no call has', async () => {
    for (const maxStepsPerCall of [0, 9, 1.5]) {
      await expect(Engine.load({ backend, maxStepsPerCall })).rejects.toMatchObject({
        code: 'OPTION_INVALID',
        message: expect.stringContaining('maxStepsPerCall'),
      });
    }
    await using engine = await Engine.load({ backend, maxStepsPerCall: 8 });
    expect((await engine.complete({ prompt, maxTokens: 3 })).tokenIds).toHaveLength(3);
  });

  it('says what is banned when nothing is left', async () => {
    await using engine = await Engine.load({ backend });
    const ban = (from: number) =>
      Object.fromEntries(Array.from({ length: 4096 - from }, (_, id) => [id + from, -Infinity]));
    await expect(engine.complete({ prompt, maxTokens: 2, logitBias: ban(0) })).rejects.toMatchObject({
      code: 'NO_TOKEN_ALLOWED',
    });
    const { tokenIds } = await engine.complete({ prompt, maxTokens: 4, logitBias: ban(1), ignoreEos: true });
    expect(tokenIds).toEqual([0, 0, 0, 0]);
  });

  it('rejects everything after dispose', async () => {
    const engine = await Engine.load({ backend });
    const running = engine.complete({ prompt, ignoreEos: true });
    const settled = expect(running).rejects.toMatchObject({ code: 'DISPOSED' });
    await engine.dispose();
    await settled;
    await engine.dispose();
    await expect(engine.complete({ prompt })).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('does not load when the signal was aborted before', async () => {
    await expect(Engine.load({ backend, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('backends', () => {
  it('give the same logits within 1e-3 with exact activations', async () => {
    await using native = await Engine.load({ backend: 'native-cpu', activations: 'f32' });
    await using reference = await Engine.load({ backend: 'reference', activations: 'f32' });
    const ids = native.tokenizer.encode(prompt);
    const [a, b] = await Promise.all([native.logits(ids), reference.logits(ids)]);
    const difference = a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0);
    expect(difference).toBeLessThan(1e-3);
  });

  it('sample the same tokens at any thread count', async () => {
    const answers = [];
    for (const threads of [1, 2, 3]) {
      await using engine = await Engine.load({ backend: 'native-cpu', threads });
      answers.push((await engine.complete({ prompt, maxTokens: 40, seed: 11, temperature: 1 })).tokenIds);
    }
    expect(answers[1]).toEqual(answers[0]);
    expect(answers[2]).toEqual(answers[0]);
  });
});
