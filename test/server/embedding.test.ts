import { describe, expect, it } from 'vitest';
import { type Json, post, start } from './harness.js';

describe('POST /v1/embeddings', () => {
  it('answers as OpenAI does, in the order of the inputs', async () => {
    const { url, model } = await start();
    const { status, json } = await post(`${url}/v1/embeddings`, { model: 'test/model', input: ['abc', 'de'] });
    expect(status).toBe(200);
    expect(json).toEqual({
      object: 'list',
      data: [
        { object: 'embedding', index: 0, embedding: [3, 3.25, 3.5] },
        { object: 'embedding', index: 1, embedding: [2, 2.25, 2.5] },
      ],
      model: 'test/model',
      usage: { prompt_tokens: 5, total_tokens: 5 },
    });
    expect(model.embedded[0]).toMatchObject({ inputs: ['abc', 'de'] });
  });

  it('gives little-endian float32 as base64', async () => {
    const { url } = await start();
    const { json } = await post(`${url}/v1/embeddings`, { input: 'abc', encoding_format: 'base64', dimensions: 2 });
    const bytes = Buffer.from(json.data[0].embedding, 'base64');
    expect([bytes.length, bytes.readFloatLE(0), bytes.readFloatLE(4)]).toEqual([8, 3, 3.25]);
  });

  it('takes token ids, and passes on dimensions and pooling', async () => {
    const { url, model } = await start();
    await post(`${url}/v1/embeddings`, { input: [1, 2, 3], dimensions: 5, pooling: 'last' });
    await post(`${url}/v1/embeddings`, { input: [[1], [2, 3]] });
    expect(model.embedded.map(({ inputs }) => inputs)).toEqual([[[1, 2, 3]], [[1], [2, 3]]]);
    expect(model.embedded[0]).toMatchObject({ dimensions: 5, pooling: 'last' });
  });

  it('is given up when the client hangs up', async () => {
    const { url, model } = await start();
    model.prefill = () => new Promise(() => undefined);
    const controller = new AbortController();
    const request = fetch(`${url}/v1/embeddings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"input":"abc"}',
      signal: controller.signal,
    });
    await expect.poll(() => model.running).toBe(1);
    controller.abort();
    await expect(request).rejects.toThrow();
    await expect.poll(() => [model.running, model.aborted]).toEqual([0, 1]);
  });

  it.each([
    [{ input: [] }, 'input'],
    [{ input: [1.5] }, 'input'],
    [{ input: Array(2049).fill('a') }, 'input'],
    [{ input: 'a', dimensions: 0 }, 'dimensions'],
    [{ input: 'a', encoding_format: 'hex' }, 'encoding_format'],
    [{}, 'input'],
  ] satisfies [Json, string][])('refuses %j', async (body, param) => {
    const { url } = await start();
    const { status, json } = await post(`${url}/v1/embeddings`, body);
    expect([status, json.error.param, json.error.code]).toEqual([400, param, 'invalid_value']);
  });
});
