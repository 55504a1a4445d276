import { describe, expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import type { ServedModel } from '../../src/serving/served-model.js';
import { FakeModel } from './fake-model.js';
import { chat, type Json, post, send, start } from './harness.js';

const route = '/v1/chat/completions';

describe('a chat body with a fault is refused with its name, value and range', () => {
  it.each([
    [{ temperature: 9 }, 'temperature', 'temperature is 9; expected a number from 0 to 2'],
    [{ temperature: '1' }, 'temperature', 'temperature is "1"; expected a number from 0 to 2'],
    [{ top_p: -1 }, 'top_p', 'top_p is -1; expected a number from 0 to 1'],
    [{ n: 129 }, 'n', 'n is 129; expected a whole number from 1 to 128'],
    [{ n: 1.5 }, 'n', 'n is 1.5; expected a whole number from 1 to 128'],
    [{ n: 1e308 }, 'n', 'n is 1e+308; expected a whole number from 1 to 128'],
    [{ max_tokens: 0 }, 'max_tokens', 'max_tokens is 0; expected a whole number from 1 to 1048576'],
    [{ seed: 2 ** 60 }, 'seed', /^seed is 1152921504606847000; expected a whole number from -9007199254740991/],
    [{ repetition_penalty: 0 }, 'repetition_penalty', /expected a number from 0.01 to 100$/],
    [{ top_logprobs: 21, logprobs: true }, 'top_logprobs', /expected a whole number from 0 to 20$/],
    [{ top_logprobs: 2 }, 'top_logprobs', 'top_logprobs is 2; expected logprobs: true beside it'],
    [{ stop: Array(17).fill('a') }, 'stop', 'stop is a list of 17; expected a string, or a list of at most 16'],
    [{ stop: 'x'.repeat(1025) }, 'stop', /expected a string, or a list/],
    [{ logit_bias: { 5: 101 } }, 'logit_bias[5]', 'logit_bias[5] is 101; expected a number from -100 to 100'],
    [{ stream: 'yes' }, 'stream', 'stream is "yes"; expected true or false'],
    [{ stream_options: { include_usage: true } }, 'stream_options', /expected stream: true beside it$/],
    [{ messages: [] }, 'messages', 'messages is a list of 0; expected a list of 1 to 4096 messages'],
    [{ messages: null }, 'messages', 'messages is missing; expected a list of 1 to 4096 messages'],
    [{ messages: 'Hi' }, 'messages', 'messages is "Hi"; expected a list of 1 to 4096 messages'],
    [{ messages: [{ content: 'Hi' }] }, 'messages[0].role', /^messages\[0\].role is missing; expected a string/],
    [{ messages: [5] }, 'messages[0]', 'messages[0] is 5; expected an object with a role'],
    [
      { messages: [{ role: 'user', content: 5 }] },
      'messages[0].content',
      /is 5; expected a string, or a list of text parts$/,
    ],
    [{ model: 5 }, 'model', 'model is 5; expected a string of at most 256 characters'],
    [{ top_k: 777 }, 'top_k', 'top_k is 777; expected less'],
  ] satisfies [Json, string, string | RegExp][])('$1 $2', async (fields, param, message) => {
    const { url } = await start();
    const { status, json } = await post(url + route, { ...chat, ...fields });
    expect(status).toBe(400);
    const text = typeof message === 'string' ? message : expect.stringMatching(message);
    expect(json.error).toEqual({ message: text, type: 'invalid_request_error', param, code: 'invalid_value' });
  });
});

describe('what the server knows and cannot honour', () => {
  const image = { type: 'image_url', image_url: { url: 'http://169.254.169.254/' } };
  const tool = { type: 'function', function: { name: 'f' } };

  it.each([
    ['response_format', { response_format: { type: 'json_object' } }],
    ['response_format', { response_format: { type: 'json_schema', json_schema: { name: 'a' } } }],
    ['tools', { tools: [tool] }],
    ['tool_choice', { tool_choice: 'required' }],
    ['functions', { functions: [{ name: 'f' }] }],
    ['audio', { audio: { voice: 'a', format: 'wav' } }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['store', { store: true }],
    ['web_search_options', { web_search_options: {} }],
    ['grammar', { grammar: 'root ::= "a"' }],
    ['guided_json', { guided_json: {} }],
    ['min_tokens', { min_tokens: 5 }],
    ['stop_token_ids', { stop_token_ids: [2] }],
    ['include_stop_str_in_output', { include_stop_str_in_output: true }],
    ['bad_words', { bad_words: ['a'] }],
    ['allowed_token_ids', { allowed_token_ids: [1] }],
    ['skip_special_tokens', { skip_special_tokens: false }],
    ['use_beam_search', { use_beam_search: true }],
    ['prompt_logprobs', { prompt_logprobs: 1 }],
    ['truncate_prompt_tokens', { truncate_prompt_tokens: 5 }],
    ['mirostat', { mirostat: 2 }],
    ['dry_multiplier', { dry_multiplier: 0.8 }],
    ['xtc_probability', { xtc_probability: 0.5 }],
    ['lora', { lora: [{ id: 0, scale: 1 }] }],
    ['chat_template', { chat_template: '{{ messages }}' }],
    ['documents', { documents: [{ text: 'a' }] }],
    ['add_generation_prompt', { add_generation_prompt: false }],
    ['continue_final_message', { continue_final_message: true }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [image] }] }],
  ])('is refused: %s %j', async (param, fields) => {
    const { url } = await start();
    const { status, json } = await post(url + route, { ...chat, ...fields });
    expect([status, json.error.code, json.error.param]).toEqual([400, 'unsupported_parameter', param]);
  });

  it.each([
    [{ response_format: { type: 'text' }, tools: [], tool_choice: 'auto', store: false, modalities: ['text'] }],
    [{ tools: [tool], tool_choice: 'none' }],
    [{ min_tokens: 0, stop_token_ids: [], bad_words: null, skip_special_tokens: true, use_beam_search: false }],
    [{ mirostat: 0, dry_multiplier: 0, xtc_probability: 0, add_generation_prompt: true, lora: [] }],
    [{ response_format: null, tools: null, audio: null, store: null, functions: [], temperature: null, n: null }],
  ])('is accepted where it asks for nothing: %j', async (fields) => {
    const { url } = await start();
    expect((await post(url + route, { ...chat, ...fields })).status).toBe(200);
  });

  it.each([
    ['suffix', { suffix: 'x' }],
    ['best_of', { best_of: 3, n: 2 }],
    ['logprobs', { logprobs: 1, echo: true }],
  ])('of completions is refused: %s', async (param, fields) => {
    const { url } = await start();
    const { status, json } = await post(`${url}/v1/completions`, { prompt: 'a', ...fields });
    expect([status, json.error.code, json.error.param]).toEqual([400, 'unsupported_parameter', param]);
    expect((await post(`${url}/v1/completions`, { prompt: 'a', suffix: '', best_of: 2, n: 2 })).status).toBe(200);
  });
});

describe('what other routes know and cannot honour', () => {
  const both = ['/tokenize', '/apply-template'];
  const cases = [
    ...both.map(
      (path) => [path, 'tools', { ...chat, tools: [{ type: 'function', function: { name: 'f' } }] }] as const,
    ),
    ...both.map((path) => [path, 'chat_template', { ...chat, chat_template: 'a' }] as const),
    ['/v1/embeddings', 'truncate_prompt_tokens', { input: 'a', truncate_prompt_tokens: 1 }],
    ['/v1/embeddings', 'truncate', { input: 'a', truncate: true }],
    ['/v1/embeddings', 'normalize', { input: 'a', normalize: false }],
    ['/v1/embeddings', 'embd_normalize', { input: 'a', embd_normalize: -1 }],
    ['/v1/embeddings', 'add_special_tokens', { input: 'a', add_special_tokens: false }],
  ] as const;

  it.each(cases)('%s refuses %s', async (path, param, body) => {
    const { url } = await start();
    const { status, json } = await post(url + path, body);
    expect([status, json.error.code, json.error.param]).toEqual([400, 'unsupported_parameter', param]);
  });

  it('is accepted where it asks for nothing', async () => {
    const { url } = await start();
    const nothing = { truncate: false, normalize: true, embd_normalize: 2, add_special_tokens: true };
    expect((await post(`${url}/v1/embeddings`, { input: 'a', ...nothing })).status).toBe(200);
    for (const path of both) expect((await post(url + path, { ...chat, tools: [] })).status).toBe(200);
  });
});

describe('errors of the engine', () => {
  it('get stable codes', async () => {
    const { url, model } = await start();
    const content = (text: string) => ({ messages: [{ role: 'user', content: text }] });
    const long = await post(url + route, content('x'.repeat(70)));
    expect([long.status, long.json.error.code]).toEqual([400, 'context_length_exceeded']);
    expect(long.json.error.message).toMatch(/^prompt has 74 tokens; the context allows 63/);
    const longer = await post(url + route, content('x'.repeat(64 * 32 + 1)));
    expect([longer.status, longer.json.error.code]).toEqual([400, 'context_length_exceeded']);
    const message = { role: 'assistant', tool_calls: [{ function: { arguments: 'x'.repeat(64 * 32) } }] };
    expect((await post(url + route, { messages: [message] })).json.error.code).toBe('context_length_exceeded');
    const other = await post(url + route, { ...chat, model: 'gpt-5' });
    expect([other.status, other.json.error.code, other.json.error.param]).toEqual([404, 'model_not_found', 'model']);
    expect(other.json.error.message).toContain('test/model');
    const template = await post(url + route, content('no template'));
    expect([template.status, template.json.error.code]).toEqual([400, 'chat_template_missing']);
    model.failure = { after: 0, error: new EngineError('QUEUE_FULL', { waiting: 9, limit: 9 }) };
    const full = await post(url + route, { ...chat, stream: true });
    expect([full.status, full.json.error.code, full.headers.get('retry-after')]).toEqual([
      503,
      'server_overloaded',
      '1',
    ]);
    model.failure = { after: 0, error: new EngineError('OUT_OF_MEMORY', { bytes: 9, what: 'a step' }) };
    const short = await post(url + route, chat);
    expect([short.status, short.json.error.code, short.headers.get('retry-after')]).toEqual([
      503,
      'out_of_memory',
      '5',
    ]);
  });

  it('never show where the model lies', async () => {
    const { url } = await start();
    const { json } = await post(url + route, { messages: [{ role: 'user', content: 'no template' }] });
    expect(json.error.message).toMatch(/^test\/model has no chat template/);
  });

  it('that nobody foresaw stay within their request, and say nothing about it', async () => {
    const { url, model } = await start();
    model.failure = { after: 1, error: new Error('secret') };
    const { status, json } = await post(url + route, chat);
    expect([status, json.error.code, json.error.type]).toEqual([500, 'internal_error', 'server_error']);
    expect(JSON.stringify(json)).not.toContain('secret');
    model.failure = null;
    expect((await post(url + route, chat)).status).toBe(200);
  });
});

describe('while there is no model', () => {
  it('every route but /metrics answers 503, until it is there', async () => {
    let loaded: (model: ServedModel) => void = () => undefined;
    const { url } = await start({
      model: new Promise((resolve) => {
        loaded = resolve;
      }),
      metrics: async () => ({ contentType: 'text/plain', text: 'engine:up 1' }),
    });
    expect((await fetch(`${url}/metrics`)).status).toBe(200);
    for (const path of ['/health', '/v1/models', '/nowhere']) {
      const { status, json, headers } = await send(url + path);
      expect([status, json.error.code, headers.get('retry-after')]).toEqual([503, 'model_loading', '2']);
    }
    expect((await post(url + route, chat)).status).toBe(503);
    loaded(new FakeModel());
    await expect.poll(async () => (await send(`${url}/health`)).status).toBe(200);
    expect((await post(url + route, chat)).status).toBe(200);
  });

  it('/health tells why it could not be loaded', async () => {
    const { url } = await start({ model: Promise.reject(new Error('the disk is gone')) });
    const { status, json } = await send(`${url}/health`);
    expect([status, json.error.code]).toEqual([503, 'model_unavailable']);
    expect(json.error.message).toContain('the disk is gone');
  });

  it('/health names no path of the machine', async () => {
    const missing = new EngineError('FILE_NOT_FOUND', { what: 'model', path: '/home/somebody/secret.gguf' });
    const { url } = await start({ model: Promise.reject(missing) });
    const { json } = await send(`${url}/health`);
    expect(json.error.message).toContain('model test/model does not exist');
    expect(json.error.message).not.toContain('somebody');
  });

  it('a server that drains refuses new requests and finishes those in progress', async () => {
    const { app, url, model } = await start();
    let go: () => void = () => undefined;
    model.prefill = () =>
      new Promise<void>((resolve) => {
        go = resolve;
      });
    const running = post(url + route, chat);
    await expect.poll(() => app.activity.running).toBe(1);
    app.activity.drain();
    const refused = await post(url + route, chat);
    expect([refused.status, refused.json.error.code, refused.headers.get('retry-after')]).toEqual([
      503,
      'shutting_down',
      '5',
    ]);
    expect((await send(`${url}/health`)).status).toBe(503);
    go();
    expect((await running).status).toBe(200);
    await app.activity.idle();
    expect(app.activity.running).toBe(0);
  });
});

describe('requests that are none', () => {
  it('get 404, or 405 where another method would do', async () => {
    const { url } = await start();
    const unknown = await send(`${url}/v1/nowhere?key=1`);
    expect([unknown.status, unknown.json.error.code]).toEqual([404, 'not_found']);
    expect(unknown.json.error.message).toMatch(/^there is no route GET \/v1\/nowhere;/);
    const method = await send(`${url}${route}`);
    expect([method.status, method.json.error.code, method.headers.get('allow')]).toEqual([
      405,
      'method_not_allowed',
      'POST',
    ]);
    expect((await post(`${url}/v1/models`, {})).headers.get('allow')).toBe('GET, HEAD');
    expect((await post(`${url}/v1/models/a/b`, {})).status).toBe(405);
    expect((await send(`${url}/%ff`)).status).toBe(400);
  });

  it.each([
    ['', 400, 'invalid_json'],
    ['{"a":', 400, 'invalid_json'],
    ['5', 400, 'invalid_value'],
    ['[]', 400, 'invalid_value'],
    ['null', 400, 'invalid_value'],
    ['"a"', 400, 'invalid_value'],
  ])('body %j', async (body, status, code) => {
    const { url } = await start();
    const reply = await post(url + route, body);
    expect([reply.status, reply.json.error.code, reply.json.error.type]).toEqual([
      status,
      code,
      'invalid_request_error',
    ]);
  });

  it('get 415 for what is not JSON, as forms of web pages are', async () => {
    const { url } = await start();
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=a']) {
      const { status, json } = await post(url + route, JSON.stringify(chat), { 'content-type': type });
      expect([status, json.error.code]).toEqual([415, 'unsupported_media_type']);
    }
    const charset = { 'content-type': 'application/json; charset=utf-8' };
    expect((await post(url + route, chat, charset)).status).toBe(200);
  });
});
