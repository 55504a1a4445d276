import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { createServer } from '../../src/server/server.js';
import { routesOf } from './clients/routes.js';
import { FakeModel } from './fake-model.js';
import { chat, type Json, post, send, start } from './harness.js';

const route = '/v1/chat/completions';
const apiKeys = [
  { name: 'ann', key: 'key-of-ann' },
  { name: 'bob', key: 'key-of-bob' },
];

describe('an API key', () => {
  it('guards every route but /health', async () => {
    const metrics = async () => ({ contentType: 'text/plain', text: '' });
    const { url, app } = await start({ apiKeys, metrics });
    const open: string[] = [];
    for (const { path, methods } of [...routesOf(app), { path: '/nowhere', methods: ['GET'] }]) {
      for (const method of methods) {
        const { status } = await fetch(url + path, { method });
        if (status !== 401) open.push(`${method} ${path}`);
      }
    }
    expect(open).toEqual(['GET /health', 'HEAD /health']);
  });

  it('is refused where it is wrong, in OpenAI words', async () => {
    const { url } = await start({ apiKeys });
    for (const authorization of [
      'Bearer key-of-eve',
      'Bearer key-of-ann2',
      'Bearer',
      'key-of-ann',
      'Basic key-of-ann',
      '',
    ]) {
      const { status, json, headers } = await post(url + route, chat, { authorization });
      expect([status, json.error.code, json.error.type]).toEqual([401, 'invalid_api_key', 'authentication_error']);
      expect(headers.get('www-authenticate')).toMatch(/^Bearer/);
      expect(json.error.message).not.toContain('key-of-ann');
    }
  });

  it('names the tenant', async () => {
    const { url, model } = await start({ apiKeys });
    expect((await post(url + route, chat, { authorization: 'Bearer key-of-bob' })).status).toBe(200);
    expect(model.requests[0]!.tenant).toBe('bob');
  });

  it('is asked for by a browser, as a password', async () => {
    const { url, model } = await start({ apiKeys });
    const page = await send(`${url}/v1/models`, { headers: { accept: 'text/html,*/*' } });
    expect(page.headers.get('www-authenticate')).toMatch(/^Basic/);
    const authorization = `Basic ${Buffer.from('anyone:key-of-ann').toString('base64')}`;
    expect((await post(url + route, chat, { authorization })).status).toBe(200);
    expect(model.requests[0]!.tenant).toBe('ann');
  });

  it('has a limit of requests in progress of its own', async () => {
    const { url, model, app } = await start({ apiKeys, limits: { requestsPerKey: 2 } });
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    model.prefill = () => gate;
    const as = (name: string) => post(url + route, chat, { authorization: `Bearer key-of-${name}` });
    const running = [as('ann'), as('ann')];
    await expect.poll(() => app.activity.running).toBe(2);
    const refused = await as('ann');
    expect([refused.status, refused.json.error.code]).toEqual([429, 'rate_limit_exceeded']);
    expect(refused.json.error.type).toBe('rate_limit_error');
    expect(refused.headers.get('retry-after')).toBe('1');
    const other = as('bob');
    await expect.poll(() => app.activity.running).toBe(3);
    go();
    for (const { status } of await Promise.all([...running, other])) expect(status).toBe(200);
    expect((await as('ann')).status).toBe(200);
  });

  it('is none if it is empty', () => {
    const model = Promise.resolve(new FakeModel());
    const empty = () => createServer({ model, modelName: 'm', apiKeys: [{ name: 'ann', key: '' }] });
    expect(empty).toThrow(/API key ann is ""; expected a key/);
  });
});

/** With a Host header of our choice, which fetch does not allow. */
function getAs(port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port, host: '127.0.0.1', path: '/v1/models', headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    });
    request.on('error', reject).end();
  });
}

describe('the Host header', () => {
  it.each([
    ['localhost:8080', 200],
    ['127.0.0.1', 200],
    ['[::1]:8080', 200],
    ['me.localhost', 200],
    ['evil.example', 403],
    ['127.0.0.1.evil.example', 403],
    ['localhost.evil.example:80', 403],
  ])('%s gets %i without a key', async (host, status) => {
    const { port } = await start();
    expect(await getAs(port, host)).toBe(status);
  });

  it('may be anything where there is a key', async () => {
    const { port } = await start({ apiKeys });
    expect(await getAs(port, 'evil.example')).toBe(401);
  });
});

describe('web pages of other origins', () => {
  const preflight = { origin: 'https://a.example', 'access-control-request-method': 'POST' };

  it('are not allowed unless they are named', async () => {
    const { url } = await start();
    const { status, headers } = await send(url + route, { method: 'OPTIONS', headers: preflight });
    expect(status).toBe(405);
    expect(headers.get('access-control-allow-origin')).toBeNull();
  });

  it('are allowed by name, streams too, and need the key themselves', async () => {
    const { url } = await start({ apiKeys, corsOrigins: ['https://a.example'] });
    const headers = { ...preflight, 'access-control-request-headers': 'authorization, x-stainless-os' };
    const asked = await send(url + route, { method: 'OPTIONS', headers });
    expect(asked.status).toBe(204);
    expect(asked.headers.get('access-control-allow-origin')).toBe('https://a.example');
    expect(asked.headers.get('access-control-allow-headers')).toBe('authorization, x-stainless-os');
    const { origin } = preflight;
    expect((await post(url + route, chat, { origin })).status).toBe(401);
    const response = await fetch(url + route, {
      method: 'POST',
      headers: { origin, 'content-type': 'application/json', authorization: 'Bearer key-of-ann' },
      body: JSON.stringify({ ...chat, stream: true }),
    });
    expect(response.headers.get('access-control-allow-origin')).toBe(origin);
    await response.text();
    const other = await post(url + route, chat, { origin: 'https://b.example' });
    expect(other.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('are never all allowed where there are keys', () => {
    const model = Promise.resolve(new FakeModel());
    const all = () => createServer({ model, modelName: 'm', apiKeys, corsOrigins: ['*'] });
    expect(all).toThrow(/corsOrigins is "\*"; expected origins by name/);
  });
});

describe('bodies of hostile shapes', () => {
  it('that are too large are refused before they are read', async () => {
    const { url } = await start({ limits: { bodyBytes: 1000 } });
    const { status, json } = await post(url + route, { ...chat, user: 'x'.repeat(1000) });
    expect([status, json.error.code]).toEqual([413, 'body_too_large']);
    expect(json.error.message).toBe('the request body is larger than the limit of 1000 bytes; send less');
  });

  it('that nest too deep are refused, whatever strings look like', async () => {
    const { url } = await start();
    const nested = (depth: number) =>
      `{"a":${'['.repeat(depth)}${']'.repeat(depth)},"messages":[{"role":"user","content":"[\\"[[{\\\\"}]}`;
    const deep = await post(url + route, nested(1_000_000));
    expect([deep.status, deep.json.error.code]).toEqual([400, 'invalid_json']);
    expect(deep.json.error.message).toMatch(/nests lists and objects more than 64 deep/);
    expect((await post(url + route, nested(64))).status).toBe(400);
    expect((await post(url + route, nested(63))).status).toBe(200);
    const brackets = { messages: [{ role: 'user', content: '[{'.repeat(20) }] };
    expect((await post(url + route, brackets)).status).toBe(200);
  });

  it('that name __proto__ or constructor change nothing', async () => {
    const { url, model } = await start();
    const pollution = '"__proto__":{"polluted":1,"n":3},"constructor":{"prototype":{"polluted":1}}';
    const body = `{${pollution},"messages":[{"role":"user","content":"Hi",${pollution}}],"chat_template_kwargs":{${pollution},"a":1}}`;
    const { status, json } = await post(url + route, body);
    expect([status, json.choices.length]).toEqual([200, 1]);
    expect(({} as Json).polluted).toBeUndefined();
    expect(model.requests[0]!.messages).toEqual([{ role: 'user', content: 'Hi' }]);
    expect(Object.keys(model.requests[0]!.chatTemplateKwargs!)).toEqual(['a']);
  });

  it.each([
    ['a million messages', { messages: Array(1_000_000).fill(1) }, 'messages'],
    ['a million stop strings', { ...chat, stop: Array(1_000_000).fill('') }, 'stop'],
    ['n of 2 ** 53', { ...chat, n: 2 ** 53 }, 'n'],
    ['a long model', { ...chat, model: 'e\u0301'.repeat(500_000) }, 'model'],
  ])('%s are refused quickly', async (_, body, param) => {
    const { url } = await start();
    const text = JSON.stringify(body);
    const began = performance.now();
    const { status, json } = await post(url + route, text);
    expect([status, json.error.param]).toEqual([400, param]);
    expect(performance.now() - began).toBeLessThan(2000);
  });

  it('whose numbers JavaScript cannot hold are refused', async () => {
    const { url } = await start();
    for (const number of ['1e999', '-1e999', '9'.repeat(400)]) {
      const body = `{"messages":[{"role":"user","content":"Hi"}],"temperature":${number}}`;
      expect((await post(url + route, body)).json.error.param).toBe('temperature');
    }
  });

  it('as completions and token ids are refused too', async () => {
    const { url } = await start();
    for (const prompt of [[-1], [2 ** 31], [0.5], [[]], [], [['a']], [1, 'a'], {}, Array(65).fill('a')]) {
      const { status } = await post(`${url}/v1/completions`, { prompt });
      expect([prompt, status]).toEqual([prompt, 400]);
    }
    const lone = await post(`${url}/v1/completions`, '{"prompt":"\\ud800","max_tokens":1}');
    expect(lone.status).toBe(200);
  });
});

describe('connections', () => {
  /** All that comes back on a bare socket, once it is closed. */
  function exchange(port: number, text: string): Promise<string> {
    return new Promise((resolve) => {
      let received = '';
      const socket = connect(port, '127.0.0.1', () => socket.write(text));
      socket.on('data', (data) => {
        received += data;
      });
      socket.on('error', () => undefined);
      socket.on('close', () => resolve(received));
    });
  }

  it('with headers that never end are closed', async () => {
    const { port } = await start({ limits: { headersTimeoutMs: 200, requestTimeoutMs: 500 } });
    const reply = await exchange(port, 'GET /health HTTP/1.1\r\nhost: localhost\r\nx-a: ');
    expect(reply).toMatch(/^HTTP\/1.1 408 /);
    expect(reply).toContain('"code":"client_too_slow"');
  });

  it('that say nothing are closed', async () => {
    const { port } = await start({ limits: { headersTimeoutMs: 200, requestTimeoutMs: 500 } });
    expect(await exchange(port, '')).toMatch(/408/);
  });

  it('with bodies that never end are closed', async () => {
    const { port } = await start({ limits: { headersTimeoutMs: 200, requestTimeoutMs: 400 } });
    const head = `POST ${route} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{`;
    expect(await exchange(port, head)).toMatch(/408/);
  });

  it('with headers that are too large are closed', async () => {
    const { port } = await start({ limits: { headerBytes: 2000 } });
    const reply = await exchange(port, `GET /health HTTP/1.1\r\nhost: localhost\r\nx-a: ${'a'.repeat(3000)}\r\n\r\n`);
    expect(reply).toMatch(/^HTTP\/1.1 431 /);
    expect(reply).toContain('"code":"headers_too_large"');
  });

  it('that do not speak HTTP get an answer in JSON', async () => {
    const { port } = await start();
    const reply = await exchange(port, 'HELLO\r\n\r\n');
    expect(reply).toMatch(/^HTTP\/1.1 400 .*"code":"http_invalid"/s);
  });

  it('carry request ids of their clients, where they can stand in a log', async () => {
    const { url } = await start();
    const idOf = async (id: string) =>
      (await send(`${url}/health`, { headers: { 'x-request-id': id } })).headers.get('x-request-id');
    expect(await idOf('abc-1.2:3')).toBe('abc-1.2:3');
    expect(await idOf('a b"')).toMatch(/^req-/);
    expect(await idOf('a'.repeat(65))).toMatch(/^req-/);
  });
});
