import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { expectIdle, messages, modelName, realServer } from './real-server.js';

const server = await realServer();
const { engine, url } = server;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'key-of-ann', maxRetries: 0 });
const greedy = { model: modelName, messages, temperature: 0, max_tokens: 24 };

afterEach(() => expectIdle(server));

/** Tokens of the greedy answer and the likeliest alternatives. */
async function greedyTokens(max_tokens: number) {
  const { choices } = await client.chat.completions.create({ ...greedy, max_tokens, logprobs: true, top_logprobs: 3 });
  return { text: choices[0]!.message.content!, tokens: choices[0]!.logprobs!.content! };
}

describe('a chat completion, to the official client', () => {
  it('is what the library gives', async () => {
    const answer = await client.chat.completions.create(greedy);
    const { text, usage } = await engine.complete({ messages, temperature: 0, maxTokens: 24 });
    expect(text.length).toBeGreaterThan(20);
    expect(answer.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: text, refusal: null },
        logprobs: null,
        finish_reason: 'length',
      },
    ]);
    expect(answer.object).toBe('chat.completion');
    expect(answer.model).toBe(modelName);
    expect(answer.id).toMatch(/^chatcmpl-/);
    const { promptTokens } = usage;
    expect(answer.usage).toMatchObject({
      prompt_tokens: promptTokens,
      completion_tokens: 24,
      total_tokens: promptTokens + 24,
    });
  });

  it('has the id of its request, which is that of the header', async () => {
    const { response, request_id } = await client.chat.completions.create(greedy).withResponse();
    expect(request_id).toMatch(/^req-/);
    expect(response.headers.get('x-request-id')).toBe(request_id);
    expect((await client.chat.completions.create(greedy))._request_id).toMatch(/^req-/);
  });

  it('takes max_tokens by its new name', async () => {
    const { choices, usage } = await client.chat.completions.create({
      model: modelName,
      messages,
      max_completion_tokens: 5,
    });
    expect(usage!.completion_tokens).toBe(5);
    expect(choices[0]!.finish_reason).toBe('length');
  });

  it('takes messages of parts, by developers and assistants', async () => {
    const { choices } = await client.chat.completions.create({
      ...greedy,
      messages: [
        { role: 'developer', content: [{ type: 'text', text: 'Tell a tale.' }] },
        { role: 'assistant', content: 'Gladly.' },
        { role: 'user', content: [{ type: 'text', text: 'Of a fox.' }] },
      ],
    });
    const prompt = 'system: Tell a tale.\nassistant: Gladly.\nOf a fox.\n';
    const { text } = await engine.complete({ prompt, temperature: 0, maxTokens: 24 });
    expect(choices[0]!.message.content).toBe(text);
  });

  it('is the same for the same seed, another for another', async () => {
    const text = async (seed: number) => {
      const { choices } = await client.chat.completions.create({ ...greedy, temperature: 1, seed });
      return choices[0]!.message.content;
    };
    const first = await text(7);
    expect(await text(7)).toBe(first);
    expect(await text(8)).not.toBe(first);
  });

  it('has n choices, which differ', async () => {
    const { choices, usage } = await client.chat.completions.create({ ...greedy, temperature: 1, seed: 3, n: 3 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(choices.map(({ message }) => message.content)).size).toBe(3);
    expect(usage!.completion_tokens).toBe(72);
  });
});

describe('stop strings', () => {
  it('end an answer before them, where they cross tokens too', async () => {
    const { text, tokens } = await greedyTokens(24);
    // The first end of one token and beginning of the next that occur nowhere earlier in the answer.
    const ends = tokens.map((_, i) => tokens.slice(0, i).reduce((length, { token }) => length + token.length, 0));
    const end = ends.find((at) => at >= 8 && text.indexOf(text.slice(at - 2, at + 2)) === at - 2)!;
    const stop = text.slice(end - 2, end + 2);
    for (const given of [stop, ['never in there', stop]]) {
      const { choices } = await client.chat.completions.create({ ...greedy, stop: given });
      expect(choices[0]!.message.content).toBe(text.slice(0, end - 2));
      expect(choices[0]!.finish_reason).toBe('stop');
    }
  });

  it('never show in a stream, not even for a moment', async () => {
    const { text } = await greedyTokens(24);
    const stop = text.slice(10, 16);
    let shown = '';
    for await (const { choices } of await client.chat.completions.create({ ...greedy, stop, stream: true })) {
      shown += choices[0]?.delta.content ?? '';
      expect(text.slice(0, text.indexOf(stop)).startsWith(shown)).toBe(true);
    }
    expect(shown).toBe(text.slice(0, text.indexOf(stop)));
  });
});

describe('log-probabilities', () => {
  it('are of every token, with alternatives in descending order', async () => {
    const { text, tokens } = await greedyTokens(12);
    expect(tokens).toHaveLength(12);
    expect(Buffer.concat(tokens.map(({ bytes }) => Buffer.from(bytes!))).toString()).toBe(text);
    for (const { token, logprob, top_logprobs } of tokens) {
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]).toMatchObject({ token, logprob });
      const values = top_logprobs.map((top) => top.logprob);
      expect(values).toEqual([...values].sort((a, b) => b - a));
      expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeLessThanOrEqual(1.0001);
    }
  });

  it('are without alternatives unless these are asked for, and the same in a stream', async () => {
    const { choices } = await client.chat.completions.create({ ...greedy, logprobs: true });
    const whole = choices[0]!.logprobs!.content!;
    expect(whole.every(({ top_logprobs }) => top_logprobs.length === 0)).toBe(true);
    const streamed = [];
    for await (const chunk of await client.chat.completions.create({ ...greedy, logprobs: true, stream: true })) {
      streamed.push(...(chunk.choices[0]?.logprobs?.content ?? []));
    }
    expect(streamed).toEqual(whole);
  });
});

describe('logit_bias', () => {
  it('bans a token, or makes it the only one', async () => {
    const tokenIds = engine.promptIds({ messages });
    const { tokenIds: ids } = await engine.complete({ tokenIds, temperature: 0, maxTokens: 4 });
    const answer = async (bias: number) => {
      const body = { ...greedy, max_tokens: 4, logit_bias: { [ids[1]!]: bias }, return_token_ids: true };
      const { choices } = await client.chat.completions.create(body);
      return (choices[0] as unknown as { token_ids: number[] }).token_ids;
    };
    expect(await answer(0)).toEqual(ids);
    expect(await answer(-100)).not.toContain(ids[1]);
    expect(await answer(100)).toEqual(Array(4).fill(ids[1]));
  });
});
