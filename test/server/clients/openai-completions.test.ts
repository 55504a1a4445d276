import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { expectIdle, modelName, realServer } from './real-server.js';

const server = await realServer();
const { engine, url } = server;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'key-of-ann', maxRetries: 0 });
const prompts = ['Once upon a time', 'The little mouse said'];
const greedy = { model: modelName, prompt: prompts[0]!, temperature: 0, max_tokens: 12 };

afterEach(() => expectIdle(server));

/** What the library makes of a prompt. */
const alone = async (prompt: string) => (await engine.complete({ prompt, temperature: 0, maxTokens: 12 })).text;

describe('a completion, to the official client', () => {
  it('is what the library gives', async () => {
    const { object, choices, usage } = await client.completions.create(greedy);
    expect(object).toBe('text_completion');
    expect(choices).toEqual([{ index: 0, text: await alone(prompts[0]!), logprobs: null, finish_reason: 'length' }]);
    expect(usage).toMatchObject({ prompt_tokens: engine.encode(prompts[0]!).length, completion_tokens: 12 });
  });

  it('has 16 tokens unless told otherwise', async () => {
    const { usage } = await client.completions.create({ model: modelName, prompt: 'A fox', logit_bias: { 0: -100 } });
    expect(usage!.completion_tokens).toBe(16);
  });

  it('of several prompts is each as it is alone', async () => {
    const { choices, usage } = await client.completions.create({ ...greedy, prompt: prompts });
    expect(choices.map(({ index, text }) => [index, text])).toEqual([
      [0, await alone(prompts[0]!)],
      [1, await alone(prompts[1]!)],
    ]);
    const promptTokens = prompts.reduce((sum, prompt) => sum + engine.encode(prompt).length, 0);
    expect(usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: 24 });
  });

  it('of token ids is that of their text', async () => {
    const ids = prompts.map((prompt) => [...engine.encode(prompt)]);
    const one = await client.completions.create({ ...greedy, prompt: ids[1]! });
    expect(one.choices[0]!.text).toBe(await alone(prompts[1]!));
    const two = await client.completions.create({ ...greedy, prompt: ids });
    expect(two.choices.map(({ text }) => text)).toEqual(await Promise.all(prompts.map(alone)));
  });

  it('begins with its prompt where echo asks for it, streamed too', async () => {
    const expected = prompts[0] + (await alone(prompts[0]!));
    const { choices } = await client.completions.create({ ...greedy, echo: true });
    expect(choices[0]!.text).toBe(expected);
    let text = '';
    for await (const { choices } of await client.completions.create({ ...greedy, echo: true, stream: true })) {
      text += choices[0]!.text;
    }
    expect(text).toBe(expected);
  });

  it('has log-probabilities of the old kind, whole and streamed', async () => {
    const { choices } = await client.completions.create({ ...greedy, logprobs: 2 });
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(tokens!.join('')).toBe(choices[0]!.text);
    expect(text_offset).toEqual(tokens!.map((_, i) => tokens!.slice(0, i).join('').length));
    for (const [i, top] of top_logprobs!.entries()) {
      expect(top[tokens![i]!]).toBe(token_logprobs![i]);
      expect(Math.max(...Object.values(top))).toBe(token_logprobs![i]); // temperature 0 takes the likeliest
      expect(Object.keys(top)).toHaveLength(2);
    }
    const streamed = { tokens: [] as string[], offsets: [] as number[] };
    for await (const { choices } of await client.completions.create({ ...greedy, logprobs: 2, stream: true })) {
      streamed.tokens.push(...(choices[0]!.logprobs?.tokens ?? []));
      streamed.offsets.push(...(choices[0]!.logprobs?.text_offset ?? []));
    }
    expect(streamed).toEqual({ tokens, offsets: text_offset });
  });

  it('has n choices for each prompt, whole and streamed the same', async () => {
    const body = { ...greedy, prompt: prompts, n: 2, temperature: 1, seed: 5 };
    const whole = (await client.completions.create(body)).choices.map(({ text }) => text);
    expect(new Set(whole).size).toBe(4);
    const texts = ['', '', '', ''];
    let usage: unknown;
    const stream_options = { include_usage: true };
    for await (const chunk of await client.completions.create({ ...body, stream: true, stream_options })) {
      for (const { index, text } of chunk.choices) texts[index] += text;
      usage = chunk.usage;
    }
    expect(texts).toEqual(whole);
    expect(usage).toMatchObject({ completion_tokens: 48 });
  });

  it('ends before a stop string', async () => {
    const text = await alone(prompts[0]!);
    const stop = text.slice(6, 10);
    const { choices } = await client.completions.create({ ...greedy, stop });
    expect(choices[0]).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish_reason: 'stop' });
  });
});
