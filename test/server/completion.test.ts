import { describe, expect, it } from 'vitest';
import { events, type Json, post, start } from './harness.js';

const path = '/v1/completions';

describe('POST /v1/completions', () => {
  it('answers as OpenAI does', async () => {
    const { url, model } = await start();
    const { status, json } = await post(url + path, { model: 'test/model', prompt: 'Say' });
    expect(status).toBe(200);
    expect(json).toEqual({
      id: expect.stringMatching(/^cmpl-[0-9a-f]{32}$/),
      object: 'text_completion',
      created: expect.any(Number),
      model: 'test/model',
      system_fingerprint: expect.any(String),
      choices: [{ index: 0, text: 'Hello, world', logprobs: null, finish_reason: 'stop' }],
      usage: { prompt_tokens: 4, completion_tokens: 12, total_tokens: 16, prompt_tokens_details: { cached_tokens: 2 } },
    });
    expect(model.requests[0]).toMatchObject({ prompt: 'Say', maxTokens: 16 });
  });

  it.each([
    ['a string', 'ab', ['ab']],
    ['strings', ['ab', 'c'], ['ab', 'c']],
    ['token ids', [97, 98], [[97, 98]]],
    ['lists of token ids', [[97], [98, 99]], [[97], [98, 99]]],
  ])('takes %s as prompt', async (_, prompt, prompts) => {
    const { url, model } = await start();
    const { json } = await post(url + path, { prompt, n: 2, max_tokens: 3 });
    expect(model.requests.map(({ prompt, tokenIds }) => prompt ?? tokenIds)).toEqual(prompts);
    expect(json.choices).toHaveLength(2 * prompts.length);
    expect(json.choices.map(({ index }: Json) => index)).toEqual(json.choices.map((_: Json, index: number) => index));
    expect(json.usage.completion_tokens).toBe(6 * prompts.length);
  });

  it('echoes prompts, strings as they are and token ids as text, whole and streamed', async () => {
    const { url, model } = await start();
    model.reply = 'xy';
    const body = { prompt: [[97, 98], [99]], echo: true };
    const { json } = await post(url + path, body);
    expect(json.choices.map(({ text }: Json) => text)).toEqual(['abxy', 'cxy']);
    const chunks = (await events(url + path, body)).slice(0, -1);
    const text = (index: number) =>
      chunks.map(({ choices }) => (choices[0].index === index ? choices[0].text : '')).join('');
    expect([text(0), text(1)]).toEqual(['abxy', 'cxy']);
    expect((await post(url + path, { prompt: 'Say ', echo: true })).json.choices[0].text).toBe('Say xy');
  });

  it('gives log-probabilities in the older shape, with offsets that go on in a stream', async () => {
    const { url, model } = await start();
    model.reply = 'abc';
    const body = { prompt: 'p', logprobs: 2 };
    const { json } = await post(url + path, body);
    const { logprobs } = json.choices[0];
    expect(logprobs).toEqual({
      tokens: ['a', 'b', 'c'],
      token_logprobs: [-0.5, -0.5, -0.5],
      top_logprobs: ['a', 'b', 'c'].map((letter) => ({ [letter]: -0.5, [`${letter}1`]: -1.5 })),
      text_offset: [0, 1, 2],
    });
    const chunks = (await events(url + path, body)).slice(0, 3);
    expect(chunks.map(({ choices }) => choices[0].logprobs.text_offset)).toEqual([[0], [1], [2]]);
    expect((await post(url + path, { prompt: 'p', logprobs: 0 })).json.choices[0].logprobs.top_logprobs[0]).toEqual({
      a: -0.5,
    });
  });

  it('streams text, the end, usage and [DONE]', async () => {
    const { url, model } = await start();
    model.reply = 'ab';
    const chunks = await events(url + path, { prompt: 'p', stream_options: { include_usage: true } });
    const choice = (text: string, finish_reason: string | null) => [{ index: 0, text, logprobs: null, finish_reason }];
    expect(chunks.slice(0, -1).map(({ choices }) => choices)).toEqual([
      choice('a', null),
      choice('b', null),
      choice('', 'stop'),
      [],
    ]);
    expect(chunks[0]).toMatchObject({ object: 'text_completion', usage: null });
    expect(chunks.at(-2).usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 2 });
    expect(chunks.at(-1)).toBe('[DONE]');
  });

  it('returns token ids if asked to', async () => {
    const { url, model } = await start();
    model.reply = 'a';
    const body = { prompt: ['p', 'q'], return_token_ids: true };
    const { json } = await post(url + path, body);
    expect(json.choices[1]).toMatchObject({ token_ids: [97], prompt_token_ids: [1, 113] });
    const first = (await events(url + path, body)).find((chunk) => chunk.choices[0].index === 1);
    expect(first.choices[0].prompt_token_ids).toEqual([1, 113]);
  });

  it('ends all prompts when one fails', async () => {
    const { url, model } = await start();
    model.step = () => new Promise(() => undefined);
    const { status, json } = await post(url + path, { prompt: [[97], [5000]] });
    expect(status).toBe(400);
    expect(json.error.message).toMatch(/token id 5000 at index 0 is outside the vocabulary/);
    expect(model.running).toBe(0);
  });
});
