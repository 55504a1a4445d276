import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { RequestEnd, RequestStart } from '../../src/server/observer.js';
import { expectIdle, messages, realServer } from './clients/real-server.js';
import { chat, post, start, until } from './harness.js';

const never = () => new Promise<never>(() => undefined);
const apiKeys = [
  { name: 'ann', key: 'key-of-ann' },
  { name: 'bob', key: 'key-of-bob' },
];
const as = (key: string) => ({ authorization: `Bearer ${key}` });
/** A request to each route about tokens. */
const requests = [
  ['/tokenize', { prompt: 'a' }],
  ['/detokenize', { tokens: [97] }],
  ['/apply-template', chat],
] as const;

describe('routes about tokens', () => {
  it("count among a key's requests in progress", async () => {
    const { url, model, app } = await start({ apiKeys, limits: { requestsPerKey: 1 } });
    model.reading = never;
    const leave = new AbortController();
    const init = {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...as('key-of-ann') },
      body: '{"prompt":"a"}',
      signal: leave.signal,
    };
    const first = fetch(`${url}/tokenize`, init);
    await until(() => model.running === 1);
    for (const [path, body] of requests) {
      const { status, json, headers } = await post(url + path, body, as('key-of-ann'));
      expect([path, status, json.error.code]).toEqual([path, 429, 'rate_limit_exceeded']);
      expect(headers.get('retry-after')).toBe('1');
    }
    expect((await post(`${url}/detokenize`, { tokens: [97] }, as('key-of-bob'))).status).toBe(200);
    leave.abort();
    await expect(first).rejects.toThrow();
    await until(() => app.activity.running === 0);
    for (const [path, body] of requests.slice(1)) {
      expect((await post(url + path, body, as('key-of-ann'))).status).toBe(200);
    }
  });

  it.each([{ prompt: 'a' }, chat])('end with the deadline: %o', async (body) => {
    const { url, model, app } = await start({ limits: { deadlineMs: 50 } });
    model.reading = never;
    const { status, json } = await post(`${url}/tokenize`, body);
    expect([status, json.error.code]).toEqual([504, 'deadline_exceeded']);
    await until(() => model.running === 0);
    expect([model.aborted, app.activity.running]).toEqual([1, 0]);
  });

  it('stop reading when the client leaves', async () => {
    const { url, model, app } = await start();
    model.reading = never;
    for (const body of [{ content: 'a' }, chat]) {
      const leave = new AbortController();
      const headers = { 'content-type': 'application/json' };
      const init = { method: 'POST', headers, body: JSON.stringify(body), signal: leave.signal };
      const answer = fetch(`${url}/tokenize`, init);
      await until(() => model.running === 1);
      leave.abort();
      await expect(answer).rejects.toThrow();
      await until(() => model.running === 0 && app.activity.running === 0);
    }
    expect(model.aborted).toBe(2);
  });

  it('are observed like the others', async () => {
    const seen: [RequestStart['operation'], RequestEnd['status']][] = [];
    const observer = {
      begin: ({ operation }: RequestStart) => ({
        tokens: () => undefined,
        end: ({ status }: RequestEnd) => void seen.push([operation, status]),
      }),
    };
    const { url } = await start({ observers: [observer] });
    for (const [path, body] of requests) await post(url + path, body);
    await post(`${url}/detokenize`, { tokens: [5000] });
    expect(seen).toEqual([
      ['tokenize', 200],
      ['detokenize', 200],
      ['apply_template', 200],
      ['detokenize', 400],
    ]);
  });

  it('are waited for by a server that drains', async () => {
    const { url, model, app } = await start();
    const released = new AbortController();
    model.reading = () => once(released.signal, 'abort');
    const answer = post(`${url}/tokenize`, { prompt: 'a' });
    await until(() => model.running === 1);
    app.activity.drain();
    const idle = app.activity.idle();
    released.abort();
    expect((await answer).json.tokens).toEqual([1, 97]);
    await idle;
  });
});

describe('a deadline that passes while other routes read', () => {
  it('is told as such', async () => {
    const { url, model } = await start({ limits: { deadlineMs: 50 } });
    model.reading = never;
    model.prefill = never;
    for (const [path, body] of [
      ['/v1/chat/completions', { ...chat, return_token_ids: true }],
      ['/v1/embeddings', { input: 'a' }],
    ] as const) {
      const { status, json } = await post(url + path, body);
      expect([path, status, json.error.code]).toEqual([path, 504, 'deadline_exceeded']);
    }
  });
});

describe('bodies about tokens of hostile sizes', async () => {
  const server = await realServer({ contextSize: 1024 }, { apiKeys: [] });
  const { url } = server;
  const longest = 1024 * 32; // characters

  it.each([
    ['/tokenize', { prompt: 'a'.repeat(longest + 1) }, 'context_length_exceeded'],
    ['/tokenize', { content: 'a'.repeat(3_000_000) }, 'context_length_exceeded'],
    ['/tokenize', { messages: [{ role: 'user', content: 'a '.repeat(longest) }] }, 'context_length_exceeded'],
    ['/tokenize', { messages: Array(4097).fill(messages[0]) }, 'invalid_value'],
    ['/tokenize', { prompt: 'a', messages }, 'invalid_value'],
    ['/tokenize', { prompt: ['a'] }, 'invalid_value'],
    ['/detokenize', { tokens: Array(2 ** 18 + 1).fill(5) }, 'invalid_value'],
    ['/detokenize', { tokens: [2 ** 31] }, 'invalid_value'],
    ['/detokenize', { tokens: [1.5] }, 'invalid_value'],
    ['/detokenize', { tokens: [2 ** 31 - 1] }, 'invalid_value'],
    ['/apply-template', { messages: [{ role: 'user', content: 'a'.repeat(longest + 1) }] }, 'context_length_exceeded'],
    ['/apply-template', { messages, chat_template_kwargs: { a: 'b'.repeat(longest) } }, 'context_length_exceeded'],
    ['/apply-template', { messages: [] }, 'invalid_value'],
  ])('%s is refused (%#)', async (path, body, code) => {
    const { status, json } = await post(url + path, body);
    expect([status, json.error.code]).toEqual([400, code]);
    await expectIdle(server);
  });

  it('are read up to the limit', async () => {
    const ids = await post(`${url}/tokenize`, { content: 'fox '.repeat(longest / 4) });
    expect([ids.status, ids.json.count > 1024]).toEqual([200, true]);
    const text = await post(`${url}/detokenize`, { tokens: ids.json.tokens });
    expect(text.json.content.trim()).toBe('fox '.repeat(longest / 4).trim());
    expect((await post(`${url}/detokenize`, { tokens: Array(2 ** 18).fill(300) })).status).toBe(200);
    const all = { messages: Array.from({ length: 500 }, () => messages[0]!) };
    expect((await post(`${url}/apply-template`, all)).json.prompt.split('\n')).toHaveLength(501);
  });

  it('are given up in the middle when the client leaves', async () => {
    const { engine } = server;
    const leave = new AbortController();
    const reading = engine.readText('fox '.repeat(1_000_000), {}, leave.signal);
    setTimeout(() => leave.abort(), 20);
    const began = performance.now();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    expect(performance.now() - began).toBeLessThan(1000); // all of it takes seconds
    await expectIdle(server);
  });
});
