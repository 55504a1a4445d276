import { describe, expect, it } from 'vitest';
import { chat, post, send, start } from './harness.js';

describe('routes about models and tokens', () => {
  it('lists the model under all its names', async () => {
    const { url } = await start({ aliases: ['gpt-4o', 'test/model'] });
    const { json } = await send(`${url}/v1/models`);
    const entry = (id: string) => ({
      id,
      object: 'model',
      created: expect.any(Number),
      owned_by: 'engine-ts',
      max_model_len: 64,
    });
    expect(json).toEqual({ object: 'list', data: [entry('test/model'), entry('gpt-4o')] });
    expect((await send(`${url}/v1/models/test%2Fmodel`)).json).toEqual(entry('test/model'));
    expect((await send(`${url}/v1/models/test/model`)).json).toEqual(entry('test/model'));
    const unknown = await send(`${url}/v1/models/other`);
    expect([unknown.status, unknown.json.error.code]).toEqual([404, 'model_not_found']);
  });

  it("tokenizes with llama.cpp's body, adding nothing unless told to", async () => {
    const { url } = await start();
    expect((await post(`${url}/tokenize`, { content: 'ab' })).json.tokens).toEqual([97, 98]);
    expect((await post(`${url}/tokenize`, { content: 'ab', add_special: true })).json.tokens).toEqual([1, 97, 98]);
  });

  it("tokenizes with vLLM's bodies, adding special tokens unless told not to", async () => {
    const { url } = await start();
    const answer = { tokens: [1, 97], count: 2, max_model_len: 64 };
    expect((await post(`${url}/tokenize`, { model: 'test/model', prompt: 'a' })).json).toEqual(answer);
    const bare = await post(`${url}/tokenize`, { prompt: 'a', add_special_tokens: false });
    expect(bare.json).toMatchObject({ tokens: [97], count: 1 });
    expect((await post(`${url}/tokenize`, chat)).json.tokens).toEqual([1, ...Buffer.from('u:Hi|')]);
    const both = await post(`${url}/tokenize`, { prompt: 'a', content: 'b' });
    expect([both.status, both.json.error.param]).toEqual([400, 'prompt']);
  });

  it('detokenizes for both, and refuses ids that there are none of', async () => {
    const { url } = await start();
    expect((await post(`${url}/detokenize`, { tokens: [97, 98] })).json).toEqual({ content: 'ab', prompt: 'ab' });
    expect((await post(`${url}/detokenize`, { tokens: [5000] })).status).toBe(400);
    expect((await post(`${url}/detokenize`, { tokens: [-1] })).json.error.param).toBe('tokens[0]');
  });

  it('applies the chat template', async () => {
    const { url } = await start();
    const body = { ...chat, chat_template_kwargs: { think: true } };
    expect((await post(`${url}/apply-template`, body)).json).toEqual({ prompt: 'think=true;u:Hi|' });
    const unable = await post(`${url}/apply-template`, { ...chat, add_generation_prompt: false });
    expect([unable.status, unable.json.error.code]).toEqual([400, 'unsupported_parameter']);
  });
});

describe('GET /health and /metrics', () => {
  it('say that all is well, and what is measured', async () => {
    const { url } = await start({
      metrics: async () => ({ contentType: 'text/plain; version=0.0.4', text: 'up 1\n' }),
    });
    const health = await send(`${url}/health`);
    expect([health.status, health.json]).toEqual([200, { status: 'ok' }]);
    const metrics = await fetch(`${url}/metrics`);
    expect([metrics.headers.get('content-type'), await metrics.text()]).toEqual([
      'text/plain; version=0.0.4',
      'up 1\n',
    ]);
  });

  it('has no /metrics where nothing is measured', async () => {
    const { url } = await start();
    expect((await send(`${url}/metrics`)).status).toBe(404);
  });
});
