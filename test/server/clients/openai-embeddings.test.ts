import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { aliases, expectIdle, modelName, realServer } from './real-server.js';

const server = await realServer();
const { engine, url } = server;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'key-of-ann', maxRetries: 0 });
const input = ['A fox in the wood', 'The wolf and the fox', 'Bread and butter'];

afterEach(() => expectIdle(server));

describe('embeddings, to the official client', () => {
  it('are the library`s to the last bit, in base64, which is what the client asks for', async () => {
    const { object, data, model, usage } = await client.embeddings.create({ model: modelName, input });
    const { vectors, promptTokens } = await engine.embed({ inputs: input });
    expect([object, model]).toEqual(['list', modelName]);
    expect(data.map(({ index, object }) => [index, object])).toEqual(input.map((_, i) => [i, 'embedding']));
    expect(data.map(({ embedding }) => embedding)).toEqual(vectors.map((vector) => [...vector]));
    expect(usage).toEqual({ prompt_tokens: promptTokens, total_tokens: promptTokens });
  });

  it('are the same as numbers', async () => {
    const one = async (encoding_format?: 'float' | 'base64') => {
      const format = encoding_format && { encoding_format };
      return (await client.embeddings.create({ model: modelName, input: input[0]!, ...format })).data[0]!.embedding;
    };
    expect(await one('float')).toEqual(await one());
    const text = (await one('base64')) as unknown as string; // asked for by name, the client leaves it as it is
    const bytes = Buffer.from(text, 'base64');
    const vector = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    expect([...vector]).toEqual(await one());
  });

  it('can be shortened, and stay unit vectors', async () => {
    const { data } = await client.embeddings.create({ model: modelName, input, dimensions: 64 });
    for (const { embedding } of data) {
      expect(embedding).toHaveLength(64);
      expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
    }
  });

  it('of token ids are those of their texts', async () => {
    const ids = input.map((text) => [...engine.encode(text)]);
    const ofTexts = await client.embeddings.create({ model: modelName, input });
    const ofLists = await client.embeddings.create({ model: modelName, input: ids });
    expect(ofLists.data).toEqual(ofTexts.data);
    const ofList = await client.embeddings.create({ model: modelName, input: ids[0]! });
    expect(ofList.data).toEqual(ofTexts.data.slice(0, 1));
  });

  it('of many inputs are each as they are alone', async () => {
    const many = Array.from({ length: 200 }, (_, i) => `The tale of fox number ${i}`);
    const together = await client.embeddings.create({ model: modelName, input: many });
    const alone = await client.embeddings.create({ model: modelName, input: many[77]! });
    expect(together.data).toHaveLength(200);
    expect(together.data[77]!.embedding).toEqual(alone.data[0]!.embedding);
  });

  it('are refused by name where they cannot be', async () => {
    const failed = (body: object) => client.embeddings.create({ model: modelName, input, ...body });
    await expect(failed({ dimensions: 257 })).rejects.toMatchObject({ status: 400, param: 'dimensions' });
    await expect(failed({ input: '' })).rejects.toThrow(OpenAI.BadRequestError);
    await expect(failed({ input: [] })).rejects.toMatchObject({ status: 400, param: 'input' });
    await expect(failed({ input: [[4096]] })).rejects.toThrow(OpenAI.BadRequestError);
    await expect(failed({ input: 'word '.repeat(2000) })).rejects.toMatchObject({ code: 'context_length_exceeded' });
  });
});

describe('models, to the official client', () => {
  it('are listed, each name of them, a page after the other', async () => {
    const names = [];
    for await (const model of client.models.list()) {
      expect(model).toMatchObject({ object: 'model', owned_by: 'engine-ts' });
      expect(Math.abs(model.created - Date.now() / 1000)).toBeLessThan(600);
      names.push(model.id);
    }
    expect(names).toEqual([modelName, ...aliases]);
  });

  it('are found by name, slashes and all', async () => {
    for (const name of [modelName, ...aliases]) expect((await client.models.retrieve(name)).id).toBe(name);
    await expect(client.models.retrieve('gpt-5')).rejects.toThrow(OpenAI.NotFoundError);
  });
});
