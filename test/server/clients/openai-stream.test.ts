import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { expectIdle, messages, modelName, realServer } from './real-server.js';

const server = await realServer();
const { engine, url } = server;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'key-of-ann', maxRetries: 0 });
const greedy = { model: modelName, messages, temperature: 0, max_tokens: 24 };
/** Takes a second or more if nobody ends it. */
const endless = { model: modelName, messages, ignore_eos: true, stream: true as const };

afterEach(() => expectIdle(server));

describe('a stream, to the official client', () => {
  it('has the text of the whole answer in several chunks of one id', async () => {
    const whole = await client.chat.completions.create(greedy);
    const chunks = [];
    for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true })) chunks.push(chunk);
    expect(chunks.map(({ choices }) => choices[0]!.delta.content ?? '').join('')).toBe(
      whole.choices[0]!.message.content,
    );
    expect(chunks.length).toBeGreaterThan(5);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks[0]!.choices[0]!.delta.role).toBe('assistant');
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('length');
    expect(chunks.filter(({ choices }) => choices[0]!.finish_reason !== null)).toHaveLength(1);
    expect(chunks.filter(({ usage }) => usage)).toEqual([]);
  });

  it('ends with usage where it is asked for', async () => {
    const stream_options = { include_usage: true };
    const chunks = [];
    for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true, stream_options })) {
      chunks.push(chunk);
    }
    const { promptTokens } = (await engine.complete({ messages, maxTokens: 1 })).usage;
    expect(chunks.at(-1)!.choices).toEqual([]);
    expect(chunks.at(-1)!.usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: 24 });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
  });

  it('has the same n choices as the whole answer', async () => {
    const body = { ...greedy, temperature: 1, seed: 11, n: 3 };
    const whole = await client.chat.completions.create(body);
    const texts = ['', '', ''];
    for await (const { choices } of await client.chat.completions.create({ ...body, stream: true })) {
      for (const { index, delta } of choices) texts[index] += delta.content ?? '';
    }
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
  });

  it('drives the helper of events and final values', async () => {
    const runner = client.chat.completions.stream({ ...greedy, stream_options: { include_usage: true } });
    let deltas = '';
    runner.on('content', (delta) => {
      deltas += delta;
    });
    const final = await runner.finalChatCompletion();
    expect(final.choices[0]!.message.content).toBe(deltas);
    expect(final.choices[0]!.finish_reason).toBe('length');
    expect((await runner.totalUsage()).completion_tokens).toBe(24);
    const { text } = await engine.complete({ messages, temperature: 0, maxTokens: 24 });
    expect(deltas).toBe(text);
  });

  it('can be split in two, and read as lines', async () => {
    const [one, two] = (await client.chat.completions.create({ ...greedy, stream: true })).tee();
    const text = async (stream: typeof one) => {
      let all = '';
      for await (const { choices } of stream) all += choices[0]?.delta.content ?? '';
      return all;
    };
    const [first, second] = await Promise.all([text(one), text(two)]);
    expect(first).toBe(second);
    expect(first.length).toBeGreaterThan(20);
    const lines = (await client.chat.completions.create({ ...greedy, stream: true })).toReadableStream();
    expect((await new Response(lines).text()).trim().split('\n').length).toBeGreaterThan(5);
  });
});

describe('leaving in the middle of a stream frees the engine', () => {
  /** Tokens generated while `use` ran, once nothing runs any more. */
  async function generatedIn(use: () => Promise<void>): Promise<number> {
    const before = engine.stats().generatedTokens;
    await use();
    await expectIdle(server);
    return engine.stats().generatedTokens - before;
  }
  const all = async () => {
    for await (const _ of await client.chat.completions.create(endless));
  };

  it.each([
    [
      'by the signal',
      async () => {
        const { signal, abort } = withAbort();
        for await (const _ of await client.chat.completions.create(endless, { signal })) abort();
      },
    ],
    [
      "by the stream's controller",
      async () => {
        const stream = await client.chat.completions.create(endless);
        for await (const _ of stream) stream.controller.abort();
      },
    ],
    [
      'by leaving the loop',
      async () => {
        for await (const _ of await client.chat.completions.create(endless)) break;
      },
    ],
    [
      "by the helper's abort",
      async () => {
        const runner = client.chat.completions.stream(endless);
        runner.on('content', () => runner.abort());
        await expect(runner.done()).rejects.toThrow(OpenAI.APIUserAbortError);
      },
    ],
  ])('%s', async (_, leave) => {
    const tokens = await generatedIn(leave);
    expect(tokens).toBeGreaterThan(0);
    expect(tokens).toBeLessThan(await generatedIn(all));
  });

  it('of n answers', async () => {
    const tokens = await generatedIn(async () => {
      for await (const _ of await client.chat.completions.create({ ...endless, n: 3 })) break;
    });
    expect(tokens).toBeLessThan(await generatedIn(all));
  });
});

function withAbort() {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}
