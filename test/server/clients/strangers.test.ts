import { afterEach, describe, expect, it } from 'vitest';
import { playground } from '../../../src/server/playground.js';
import { exchange, requestText, statusOf } from './raw.js';
import { apiKeys, expectIdle, realServer } from './real-server.js';
import { routesOf } from './routes.js';

const metrics = async () => ({ contentType: 'text/plain', text: '' });
const open = await realServer({ contextSize: 64 }, { apiKeys: [], metrics, playground });
const guarded = await realServer({ contextSize: 64 }, { metrics, playground });
const { port } = open;
const routes = routesOf(open.app);
const route = '/v1/chat/completions';
const local = ['host: localhost', 'connection: close'];

afterEach(async () => {
  for (const each of [open, guarded]) {
    await expectIdle(each);
    expect(statusOf(await exchange(each.port, requestText('GET', '/health')))).toBe(200);
  }
});

describe('hosts, where no key is needed', () => {
  it.each([
    ['of another name', ['host: evil.example'], 403],
    ['that only begin well', ['host: localhost.evil.example'], 403],
    ['with a user', ['host: localhost@evil.example'], 403],
    ['of a number that looks local', ['host: 127.0.0.1.nip.io'], 403],
    ['that are empty', ['host:'], 403],
    ['of all addresses', ['host: 0.0.0.0'], 403],
    ['that are missing', [], 400],
    ['that are two', ['host: evil.example', 'host: localhost'], 403],
    ['of this machine', ['host: LOCALHOST:1'], 200],
  ])('%s', async (_, hosts, status) => {
    const headers = [...hosts, 'connection: close'];
    expect(statusOf(await exchange(port, requestText('GET', '/v1/models', headers)))).toBe(status);
    if (status !== 403) return;
    for (const { path, methods } of routes.filter(({ path }) => path !== '/health')) {
      expect([path, statusOf(await exchange(port, requestText(methods[0]!, path, headers)))]).toEqual([path, 403]);
    }
  });

  it('that HTTP/1.0 leaves out are not local', async () => {
    expect(statusOf(await exchange(port, 'GET /v1/models HTTP/1.0\r\n\r\n'))).toBe(403);
  });
});

describe('keys', () => {
  const ask = async (headers: readonly string[], path = '/v1/models') =>
    statusOf(await exchange(guarded.port, requestText('GET', path, [...local, ...headers])));
  const good = `authorization: Bearer ${apiKeys[0]!.key}`;

  it.each([
    ['none', []],
    ['an empty one', ['authorization:']],
    ['a wrong one', ['authorization: Bearer key-of-eve']],
    ['a good one of another scheme', [`authorization: Digest ${apiKeys[0]!.key}`]],
    ['a good one and more', [`${good} x`]],
    ['a good one in capitals', [good.toUpperCase()]],
    ['a long one', [`authorization: Bearer ${'k'.repeat(10_000)}`]],
    ['one of other bytes', ['authorization: Bearer \xff\xfe']],
    ['two, the first one wrong', ['authorization: Bearer key-of-eve', good]],
    ['a good one in another header', [`x-api-key: ${apiKeys[0]!.key}`, `cookie: key=${apiKeys[0]!.key}`]],
  ])('%s opens nothing', async (_, headers) => {
    expect(await ask(headers)).toBe(401);
    expect(await ask(headers, '/v1/../v1/models')).not.toBe(200);
    expect(await ask(headers, `/v1/models?api_key=${apiKeys[0]!.key}`)).toBe(401);
  });

  it('a good one opens all, however its scheme is written', async () => {
    expect(await ask([good])).toBe(200);
    expect(await ask([good.replace('Bearer', 'bEARER')])).toBe(200);
  });
});

describe('web pages of other origins', () => {
  it.each(['null', 'https://evil.example', 'http://localhost:3000'])(
    '%s get no leave from a preflight',
    async (origin) => {
      for (const { path } of routes) {
        const headers = [...local, `origin: ${origin}`, 'access-control-request-method: POST'];
        const reply = await exchange(port, requestText('OPTIONS', path, headers));
        expect(statusOf(reply)).toBe(405);
        expect(reply).not.toMatch(/access-control-allow/i);
      }
      const simple = [...local, `origin: ${origin}`, 'content-type: text/plain', 'content-length: 2'];
      expect(statusOf(await exchange(port, requestText('POST', route, simple), '{}'))).toBe(415);
    },
  );
});
