import { describe, expect, it } from 'vitest';
import type { RequestEnd, RequestObserver, RequestStart } from '../../src/server/observer.js';
import { chat, events, post, start } from './harness.js';

class Recorder implements RequestObserver {
  readonly starts: RequestStart[] = [];
  readonly ends: RequestEnd[] = [];
  readonly tokens: [number, number][] = [];

  begin(start: RequestStart) {
    this.starts.push(start);
    return {
      tokens: (index: number, count: number) => this.tokens.push([index, count]),
      end: (end: RequestEnd) => this.ends.push(end),
    };
  }
}

describe('observers', () => {
  it('see a request begin, its tokens and its end', async () => {
    const recorder = new Recorder();
    const { url, model } = await start({ observers: [recorder] });
    model.reply = 'ab';
    await events(`${url}/v1/chat/completions`, { ...chat, n: 2, temperature: 0.5, max_completion_tokens: 9 });
    expect(recorder.starts).toEqual([
      {
        requestId: expect.stringMatching(/^req-/),
        operation: 'chat',
        model: 'test/model',
        stream: true,
        parameters: expect.objectContaining({ temperature: 0.5, max_tokens: 9, n: 2, top_p: undefined }),
        traceHeaders: expect.objectContaining({ host: expect.any(String) }),
      },
    ]);
    expect(recorder.tokens).toEqual([
      [0, 1],
      [1, 1],
      [0, 1],
      [1, 1],
    ]);
    const outcome = expect.objectContaining({ finishReason: 'stop' });
    expect(recorder.ends).toEqual([{ status: 200, outcomes: [outcome, outcome], promptTokens: 6 }]);
  });

  it('see completions, embeddings and what was refused', async () => {
    const recorder = new Recorder();
    const { url, model } = await start({ observers: [recorder] });
    await post(`${url}/v1/completions`, { prompt: ['a', 'bc'] });
    await post(`${url}/v1/embeddings`, { input: ['abc', 'd'] });
    await post(`${url}/v1/chat/completions`, { ...chat, model: 'other' });
    model.failure = { after: 1, error: new Error('oh') };
    await post(`${url}/v1/chat/completions`, chat);
    const seen = recorder.starts.map(({ operation }, i) => [
      operation,
      recorder.ends[i]!.status,
      recorder.ends[i]!.promptTokens,
    ]);
    expect(seen).toEqual([
      ['text_completion', 200, 5],
      ['embeddings', 200, 4],
      ['chat', 404, 0],
      ['chat', 500, 0],
    ]);
    expect(recorder.ends[3]!.error).toEqual(new Error('oh'));
  });

  it('see a client that went away as 499', async () => {
    const recorder = new Recorder();
    const { url, model } = await start({ observers: [recorder] });
    model.prefill = () => new Promise(() => undefined);
    const controller = new AbortController();
    const request = events(`${url}/v1/chat/completions`, chat, controller.signal);
    await expect.poll(() => model.running).toBe(1);
    controller.abort();
    await expect(request).rejects.toThrow();
    await expect.poll(() => recorder.ends.map(({ status }) => status)).toEqual([499]);
  });

  it('that fail do not fail the request', async () => {
    const oh = () => {
      throw new Error('oh');
    };
    const recorder = new Recorder();
    const { url } = await start({ observers: [{ begin: oh }, { begin: () => ({ tokens: oh, end: oh }) }, recorder] });
    expect((await post(`${url}/v1/chat/completions`, chat)).status).toBe(200);
    expect(recorder.ends).toHaveLength(1);
  });
});
