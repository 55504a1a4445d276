import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import { EngineError } from '../../../src/base/errors.js';
import { start } from '../harness.js';
import { apiKeys, expectIdle, messages, modelName, realServer } from './real-server.js';

const server = await realServer({ contextSize: 128 });
const baseURL = `${server.url}/v1`;
const client = new OpenAI({ baseURL, apiKey: 'key-of-ann', maxRetries: 0 });
const chat = { model: modelName, messages, max_tokens: 4 };

afterEach(() => expectIdle(server));

describe('what is refused becomes an error class of the official client', () => {
  it('AuthenticationError for a wrong key', async () => {
    const stranger = new OpenAI({ baseURL, apiKey: 'key-of-eve', maxRetries: 0 });
    const refused = stranger.chat.completions.create(chat);
    await expect(refused).rejects.toThrow(OpenAI.AuthenticationError);
    await expect(refused).rejects.toMatchObject({ status: 401, code: 'invalid_api_key', type: 'authentication_error' });
    await expect(refused).rejects.toMatchObject({ requestID: expect.stringMatching(/^req-/) });
  });

  it('NotFoundError for a model that is not there', async () => {
    const refused = client.chat.completions.create({ ...chat, model: 'gpt-5' });
    await expect(refused).rejects.toThrow(OpenAI.NotFoundError);
    await expect(refused).rejects.toMatchObject({ code: 'model_not_found', param: 'model' });
  });

  it.each([
    ['invalid_value', 'temperature', { temperature: 3 }],
    ['invalid_value', 'messages', { messages: [] }],
    ['invalid_value', 'n', { n: 0 }],
    ['unsupported_parameter', 'tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
    ['unsupported_parameter', 'response_format', { response_format: { type: 'json_object' } }],
    ['context_length_exceeded', null, { messages: [{ role: 'user', content: 'a fox '.repeat(100) }] }],
  ])('BadRequestError %s for %s', async (code, param, fields) => {
    const refused = client.chat.completions.create({ ...chat, ...(fields as object) });
    await expect(refused).rejects.toThrow(OpenAI.BadRequestError);
    await expect(refused).rejects.toMatchObject({ status: 400, code, param, type: 'invalid_request_error' });
  });

  it('BadRequestError of a stream, before it begins', async () => {
    const refused = client.chat.completions.create({ ...chat, top_p: 2, stream: true });
    await expect(refused).rejects.toThrow(OpenAI.BadRequestError);
  });

  it('NotFoundError for a route that is not there', async () => {
    await expect(client.files.list()).rejects.toMatchObject({ status: 404, code: 'not_found' });
  });
});

describe('an error on the way', () => {
  it('is thrown out of the loop over a stream', async () => {
    const { url, model } = await start();
    model.failure = { after: 3, error: new EngineError('NO_TOKEN_ALLOWED', { position: 3 }) };
    const fake = new OpenAI({ baseURL: `${url}/v1`, apiKey: '-', maxRetries: 0 });
    let text = '';
    const read = async () => {
      for await (const { choices } of await fake.chat.completions.create({
        ...chat,
        model: 'test/model',
        stream: true,
      })) {
        text += choices[0]?.delta.content ?? '';
      }
    };
    await expect(read()).rejects.toMatchObject({ code: 'no_token_allowed' });
    expect(text).toBe('Hel');
  });
});

/** A client that counts its attempts, and calls `between` after each that was refused. */
function retrying(url: string, maxRetries: number, between: () => void = () => undefined) {
  const attempts: { at: number; status: number; retryAfter: string | null }[] = [];
  const client = new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: 'key-of-ann',
    maxRetries,
    fetch: async (...args) => {
      const response = await fetch(...args);
      const { status, headers, ok } = response;
      attempts.push({ at: performance.now(), status, retryAfter: headers.get('retry-after') });
      if (!ok) between();
      return response;
    },
  });
  return { client, attempts };
}

describe('a busy server', () => {
  const body = { ...chat, model: 'test/model' };

  it('is asked again after the seconds that it names', async () => {
    const { url, model } = await start({ apiKeys, limits: { requestsPerKey: 1 } });
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    model.prefill = () => gate;
    const holder = retrying(url, 0).client.chat.completions.create(body);
    await expect.poll(() => model.running).toBe(1);
    const { client, attempts } = retrying(url, 2, go);
    expect((await client.chat.completions.create(body)).choices[0]!.message.content).toBe('Hell');
    expect(attempts.map(({ status }) => status)).toEqual([429, 200]);
    expect(attempts[0]!.retryAfter).toBe('1');
    expect(attempts[1]!.at - attempts[0]!.at).toBeGreaterThan(990); // timers may fire a millisecond early
    await holder;
  });

  it('ends in RateLimitError without retries, and in InternalServerError where the queue is full', async () => {
    const { url, model } = await start({ apiKeys, limits: { requestsPerKey: 1 } });
    let go: () => void = () => undefined;
    model.prefill = () =>
      new Promise<void>((resolve) => {
        go = resolve;
      });
    const holder = retrying(url, 0).client.chat.completions.create(body);
    await expect.poll(() => model.running).toBe(1);
    const limited = retrying(url, 0).client.chat.completions.create(body);
    await expect(limited).rejects.toThrow(OpenAI.RateLimitError);
    await expect(limited).rejects.toMatchObject({ code: 'rate_limit_exceeded', type: 'rate_limit_error' });
    go();
    await holder;
    model.prefill = async () => undefined;
    model.failure = { after: 0, error: new EngineError('QUEUE_FULL', { waiting: 5, limit: 5 }) };
    const full = retrying(url, 0).client.chat.completions.create(body);
    await expect(full).rejects.toThrow(OpenAI.InternalServerError);
    await expect(full).rejects.toMatchObject({ status: 503, code: 'server_overloaded' });
  });
});

describe('a client that will not wait', () => {
  it('gets APIConnectionTimeoutError, and its work ends', async () => {
    const { url, model, app } = await start();
    model.prefill = () => new Promise(() => undefined);
    const hasty = new OpenAI({ baseURL: `${url}/v1`, apiKey: '-', maxRetries: 0, timeout: 200 });
    await expect(hasty.chat.completions.create({ ...chat, model: 'test/model' })).rejects.toThrow(
      OpenAI.APIConnectionTimeoutError,
    );
    await expect.poll(() => [model.running, model.aborted]).toEqual([0, 1]);
    await app.activity.idle();
  });

  it('gets APIUserAbortError when it aborts a whole answer', async () => {
    const long = { ...chat, max_tokens: 100, ignore_eos: true };
    const controller = new AbortController();
    const answer = client.chat.completions.create(long, { signal: controller.signal });
    await expect.poll(() => server.app.activity.running, { interval: 1 }).toBe(1);
    controller.abort();
    await expect(answer).rejects.toThrow(OpenAI.APIUserAbortError);
  });
});
