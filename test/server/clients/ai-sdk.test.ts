import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embed, embedMany, generateText, streamText } from 'ai';
import { afterEach, describe, expect, it } from 'vitest';
import { expectIdle, messages, modelName, realServer } from './real-server.js';

const server = await realServer();
const { engine, url } = server;
const provider = createOpenAICompatible({
  name: 'engine',
  baseURL: `${url}/v1`,
  apiKey: 'key-of-ann',
  includeUsage: true,
});
const model = provider(modelName);
const greedy = { model, messages, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };

afterEach(() => expectIdle(server));

const alone = () => engine.complete({ messages, temperature: 0, maxTokens: 24 });

describe('the AI SDK', () => {
  it('generates text', async () => {
    const { text, finishReason, usage, response } = await generateText(greedy);
    const expected = await alone();
    expect(text).toBe(expected.text);
    expect(finishReason).toBe('length');
    expect(usage).toMatchObject({ inputTokens: expected.usage.promptTokens, outputTokens: 24 });
    expect(response.modelId).toBe(modelName);
    expect(response.headers!['x-request-id']).toMatch(/^req-/);
  });

  it('takes system prompts, seeds and stop sequences', async () => {
    const { text } = await alone();
    const stop = text.slice(8, 13);
    const stopped = await generateText({ ...greedy, stopSequences: [stop] });
    expect([stopped.text, stopped.finishReason]).toEqual([text.slice(0, text.indexOf(stop)), 'stop']);
    const seeded = async (seed: number) =>
      (await generateText({ ...greedy, system: 'Tell a tale.', temperature: 1, seed })).text;
    expect(await seeded(4)).toBe(await seeded(4));
    expect(await seeded(4)).not.toBe(await seeded(5));
  });

  it('streams text', async () => {
    const result = streamText(greedy);
    const parts = [];
    for await (const part of result.textStream) parts.push(part);
    const expected = await alone();
    expect(parts.join('')).toBe(expected.text);
    expect(parts.length).toBeGreaterThan(5);
    expect(await result.finishReason).toBe('length');
    expect(await result.usage).toMatchObject({ inputTokens: expected.usage.promptTokens, outputTokens: 24 });
  });

  it('completes prompts', async () => {
    const { text } = await generateText({
      model: provider.completionModel(modelName),
      prompt: 'Once upon a time',
      temperature: 0,
      maxOutputTokens: 8,
    });
    expect(text.length).toBeGreaterThan(4);
  });

  it('ends a stream that it leaves', async () => {
    const controller = new AbortController();
    const before = engine.stats().generatedTokens;
    const aborted: unknown[] = [];
    const result = streamText({
      ...greedy,
      maxOutputTokens: 900,
      abortSignal: controller.signal,
      onAbort: (event) => {
        aborted.push(event);
      },
    });
    for await (const part of result.fullStream) if (part.type === 'text-delta') controller.abort();
    expect(aborted).toHaveLength(1);
    await expectIdle(server);
    expect(engine.stats().generatedTokens - before).toBeLessThan(900);
  });

  it('embeds one text and many', async () => {
    const embeddings = provider.embeddingModel(modelName);
    const values = ['A fox in the wood', 'Bread and butter'];
    const { vectors, promptTokens } = await engine.embed({ inputs: values });
    const many = await embedMany({ model: embeddings, values });
    expect(many.embeddings).toEqual(vectors.map((vector) => [...vector]));
    expect(many.usage.tokens).toBe(promptTokens);
    const one = await embed({ model: embeddings, value: values[1]! });
    expect(one.embedding).toEqual(many.embeddings[1]);
  });

  it('reads errors', async () => {
    const failed = generateText({ ...greedy, model: provider('gpt-5') });
    await expect(failed).rejects.toSatisfy(APICallError.isInstance);
    await expect(failed).rejects.toMatchObject({ statusCode: 404, message: expect.stringContaining('gpt-5') });
    await expect(failed).rejects.toMatchObject({ isRetryable: false, data: { error: { code: 'model_not_found' } } });
    const errors: unknown[] = [];
    const stream = streamText({ ...greedy, temperature: 3, onError: ({ error }) => void errors.push(error) });
    await stream.consumeStream();
    expect(errors).toMatchObject([{ statusCode: 400, message: 'temperature is 3; expected a number from 0 to 2' }]);
  });
});
