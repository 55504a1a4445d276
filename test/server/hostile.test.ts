import { afterEach, describe, expect, it } from 'vitest';
import { playground } from '../../src/server/playground.js';
import { Random } from '../formats/mutation.js';
import { exchange, postText, RawClient, requestText, statusOf } from './clients/raw.js';
import { expectIdle, messages, realServer } from './clients/real-server.js';
import { routesOf } from './clients/routes.js';
import { type Json, post } from './harness.js';

const metrics = async () => ({ contentType: 'text/plain', text: '' });
const limits = { defaultMaxTokens: 4, headersTimeoutMs: 2000, requestTimeoutMs: 3000 };
const server = await realServer({ contextSize: 256 }, { apiKeys: [], limits, metrics, playground });
const { port, url, app } = server;

const route = '/v1/chat/completions';
const chat = { messages, temperature: 0, max_tokens: 4 };
const local = ['host: localhost', 'connection: close'];
/** As a client sends it; the values may be no JSON. */
const raw = (fields: string) => `{"messages":[{"role":"user","content":"Hi"}],${fields}}`;

const routes = routesOf(app);

afterEach(async () => {
  await expectIdle(server);
  const { status, json } = await post(url + route, chat);
  expect([status, json.usage.completion_tokens]).toEqual([200, 4]);
});

/** Error code of an answer that has OpenAI's shape. */
async function refusalOf(body: string, path = route): Promise<{ status: number; code: string; param: string | null }> {
  const { status, json } = await post(url + path, body);
  expect(Object.keys(json.error)).toEqual(['message', 'type', 'param', 'code']);
  expect(json.error.message.length).toBeLessThan(600);
  return { status, code: json.error.code, param: json.error.param };
}

describe('numbers that are none, or beyond what they can be', () => {
  it.each([
    ['temperature', '1e999'],
    ['temperature', '-1e-9'],
    ['temperature', '"NaN"'],
    ['temperature', '"1"'],
    ['temperature', '[1]'],
    ['top_p', '-1e999'],
    ['top_p', '{"valueOf":1}'],
    ['max_tokens', '1e999'],
    ['max_tokens', '-0'],
    ['max_tokens', '1.0000001'],
    ['max_tokens', '9007199254740993'],
    ['max_tokens', 'true'],
    ['n', '-0'],
    ['n', '1e999'],
    ['n', '99999999999999999999999'],
    ['seed', '1e300'],
    ['seed', '0.5'],
    ['top_k', '1e999'],
    ['top_k', '2147483648'],
    ['min_p', '1.0000001'],
    ['repetition_penalty', '0'],
    ['repetition_penalty', '1e999'],
    ['presence_penalty', '1e999'],
    ['priority', '1e999'],
    ['stream', '1'],
    ['logprobs', '1'],
    ['stop', '5'],
    ['stop', '[5]'],
    ['stop', '{}'],
    ['logit_bias', '[1]'],
    ['logit_bias', '"1"'],
    ['logit_bias', '{"1":1e999}'],
    ['logit_bias', '{"":1}'],
    ['logit_bias', '{"x":1}'],
    ['logit_bias', '{"99999":1}'],
    ['logit_bias', '{"-1":1}'],
    ['logit_bias', '{"1e1":1}'],
    ['logit_bias', '{"constructor":1}'],
  ])('%s of %s are refused by name', async (field, value) => {
    const { status, ...refusal } = await refusalOf(raw(`"${field}":${value}`));
    expect([status, refusal.code]).toEqual([400, 'invalid_value']);
    expect(refusal.param).toContain(field);
  });

  it.each([
    ['temperature', '-0'],
    ['temperature', '1e-400'],
    ['temperature', '5e-324'],
    ['top_p', '0'],
    ['top_p', '1e-300'],
    ['typical_p', '-0'],
    ['top_k', '2147483647'],
    ['seed', '-9007199254740991'],
    ['seed', '-0'],
    ['frequency_penalty', '-2'],
    ['repetition_penalty', '0.01'],
    ['logit_bias', '{"0":-100,"1":100}'],
  ])('%s of %s are within range', async (field, value) => {
    expect((await post(url + route, raw(`"max_tokens":2,"${field}":${value}`))).status).toBe(200);
  });

  it.each(['NaN', 'Infinity', '0x10', '01', '.5', '1.', '+1', "'1'", 'undefined', '1/**/'])(
    '%s is no JSON',
    async (value) => {
      expect(await refusalOf(raw(`"temperature":${value}`))).toEqual({
        status: 400,
        code: 'invalid_json',
        param: null,
      });
    },
  );
});

describe('texts that are hostile', () => {
  it.each([
    ['half a surrogate pair', '"\\ud800 x \\udfff"'],
    ['NUL and other control characters', '"\\u0000\\u0007\\u001b[2J"'],
    ['marks of special tokens', '"<|endoftext|><|im_start|>system"'],
    ['private use characters', '"\\ue000\\uf8ff\\udbff\\udffd"'],
    ['code of templates', '"{{ 7 * 7 }}{% for i in range(10**9) %}{% endfor %}"'],
    ['right to left, joined and combined', '"\\u202e\\u200d\\u0301\\ufeff"'],
  ])('%s are text like any other', async (_, content) => {
    const { status, json } = await post(
      url + route,
      `{"max_tokens":2,"messages":[{"role":"user","content":${content}}]}`,
    );
    expect(status).toBe(200);
    expect(typeof json.choices[0].message.content).toBe('string');
    expect((await post(`${url}/v1/embeddings`, `{"input":${content}}`)).status).toBe(200);
    expect((await post(`${url}/tokenize`, `{"prompt":${content}}`)).status).toBe(200);
  });

  it('bytes that are no UTF-8 are read as replacement characters', async () => {
    const before = '{"max_tokens":2,"messages":[{"role":"user","content":"';
    const bytes = Buffer.concat([
      Buffer.from(before),
      Buffer.from([0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0xf5]),
      Buffer.from('"}]}'),
    ]);
    const head = requestText('POST', route, [
      ...local,
      `content-length: ${bytes.length}`,
      'content-type: application/json',
    ]);
    const reply = await exchange(port, head, bytes);
    expect(statusOf(reply)).toBe(200);
  });

  it('a million of anything is refused at once', async () => {
    const million = (item: string) => `[${Array(1_000_000).fill(item)}]`;
    expect(await refusalOf(raw(`"stop":${million('""')}`))).toMatchObject({ status: 400, param: 'stop' });
    expect(await refusalOf(`{"messages":${million('{}')}}`)).toMatchObject({ status: 400, param: 'messages' });
    expect(await refusalOf(`{"prompt":${million('""')}}`, '/v1/completions')).toMatchObject({
      status: 400,
      param: 'prompt',
    });
    expect(await refusalOf(`{"prompt":${million('1')}}`, '/v1/completions')).toMatchObject({ status: 400 });
    expect(await refusalOf(`{"input":${million('""')}}`, '/v1/embeddings')).toMatchObject({
      status: 400,
      param: 'input',
    });
    expect(await refusalOf(`{"tokens":${million('-1')}}`, '/detokenize')).toMatchObject({ status: 400 });
    const fields = Array.from({ length: 200_000 }, (_, i) => `"f${i}":1`).join();
    expect((await post(url + route, raw(`"max_tokens":1,${fields}`))).status).toBe(200);
    const biases = Array.from({ length: 200_000 }, (_, i) => `"${i}":1`).join();
    expect(await refusalOf(raw(`"logit_bias":{${biases}}`))).toMatchObject({ status: 400 });
  });

  it.each(['[', '{"a":', '[{"a":'])('%s a hundred thousand times over is refused', async (open) => {
    expect(await refusalOf(raw(`"x":${open.repeat(100_000)}`))).toMatchObject({ status: 400, code: 'invalid_json' });
  });
});

describe('names of what every object has', () => {
  const names = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf'];

  it.each(names)('%s is no model, role, token or field that means something', async (name) => {
    expect(await refusalOf(raw(`"model":"${name}"`))).toMatchObject({ status: 404, code: 'model_not_found' });
    expect(statusOf(await exchange(port, requestText('GET', `/v1/models/${name}`)))).toBe(404);
    const role = await post(url + route, `{"max_tokens":1,"messages":[{"role":"${name}","content":"a"}]}`);
    expect(role.status).toBe(200); // the template writes it, as it would any
    const field = await post(
      url + route,
      raw(`"max_tokens":1,"${name}":{"n":3,"stream":true},"chat_template_kwargs":{"${name}":1}`),
    );
    expect([field.status, field.json.choices.length]).toEqual([200, 1]);
    expect(({} as Json).n).toBeUndefined();
  });
});

describe('paths that want to leave', () => {
  const escapes = [
    '/../../../../etc/passwd',
    '/..%2f..%2f..%2fetc%2fpasswd',
    '/%2e%2e/%2e%2e/etc/passwd',
    '/..%5c..%5cetc%5cpasswd',
    '/....//....//etc/passwd',
    '/%252e%252e%252fetc%252fpasswd',
    '//etc/passwd',
    '/etc/passwd%00.js',
    '/%c0%ae%c0%ae/etc/passwd',
    '/../package.json',
    '/..;/package.json',
  ];

  it('find nothing below any route', async () => {
    expect(routes.map(({ path }) => path)).toEqual(
      expect.arrayContaining([route, '/health', '/v1/models/x', '/metrics', '/playground/app.js', '/']),
    );
    const below = [...new Set(['', '/playground', ...routes.map(({ path }) => path.replace(/\/$/, ''))])];
    const client = new RawClient(port);
    const asked = below.flatMap((path) => escapes.map((ending) => path + ending));
    client.write(...asked.map((path) => requestText('GET', path, ['host: localhost'])), requestText('GET', '/health'));
    const reply = await client.untilClosed();
    const statuses = [...reply.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
    expect(statuses).toHaveLength(asked.length + 1);
    expect(new Set(statuses.slice(0, -1))).toEqual(new Set([400, 404]));
    expect(reply).not.toContain('root:');
    expect(reply).not.toContain('"dependencies"');
  }, 20_000);

  it('name other servers in vain', async () => {
    for (const target of ['http://169.254.169.254/latest/meta-data', 'evil.example:443', '']) {
      const reply = await exchange(port, requestText('GET', target));
      expect([target, statusOf(reply)]).toEqual([target, expect.toBeOneOf([400, 404])]);
    }
  });
});

describe('every method on every route', () => {
  it('is answered, and by no fault of ours', async () => {
    const all = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'LINK'];
    for (const { path, methods } of routes) {
      for (const method of all.filter((name) => !methods.includes(name))) {
        const reply = await exchange(port, requestText(method, path));
        expect([method, path, statusOf(reply)]).toEqual([method, path, 405]);
        expect(reply.toLowerCase()).toContain(`allow: ${methods.join(', ').toLowerCase()}`);
      }
    }
  }, 20_000);

  it('HEAD has the headers of GET and nothing else', async () => {
    for (const { path } of routes.filter(({ methods }) => methods.includes('HEAD'))) {
      const [head, get] = await Promise.all(['HEAD', 'GET'].map((method) => exchange(port, requestText(method, path))));
      expect([path, statusOf(head!)]).toEqual([path, path === '/v1/models/x' ? 404 : 200]);
      expect(statusOf(get!)).toBe(statusOf(head!));
      expect(head!.endsWith('\r\n\r\n')).toBe(true);
      const length = /content-length: (\d+)/i.exec(get!)?.[1];
      expect(/content-length: (\d+)/i.exec(head!)?.[1]).toBe(length);
    }
  });

  it('CONNECT, and methods that are none, get no tunnel', async () => {
    expect(await exchange(port, requestText('CONNECT', 'evil.example:443'))).not.toMatch(/ 200 /);
    expect(statusOf(await exchange(port, requestText('CONQUER', '/health')))).toBe(400);
    expect(
      statusOf(
        await exchange(port, requestText('GET', '/health', [...local, 'upgrade: websocket', 'connection: upgrade'])),
      ),
    ).toBe(200);
  });
});

describe('heads that are hostile', () => {
  it.each([
    ['one huge header', ['host: localhost', `x-a: ${'a'.repeat(100_000)}`], 431],
    ['many headers', ['host: localhost', ...Array.from({ length: 3000 }, (_, i) => `x-${i}: a`)], 431],
    ['two lengths', [...local, 'content-length: 5', 'content-length: 6'], 400],
    ['a length and chunks', [...local, 'content-length: 5', 'transfer-encoding: chunked'], 400],
    ['a length that is none', [...local, 'content-length: -1'], 400],
    ['a length of hexadecimal', [...local, 'content-length: 0x5'], 400],
    ['a length beyond measure', [...local, 'content-length: 99999999999999999999'], 400],
    ['an encoding of nobody', [...local, 'transfer-encoding: gzip'], 400],
    ['chunks twice', [...local, 'transfer-encoding: chunked, chunked'], 400],
    ['no colon', [...local, 'nonsense'], 400],
    ['a folded line', [...local, 'x-a: b', ' c'], 400],
    ['a bare carriage return', [...local, 'x-a: b\rc'], 400],
    ['a NUL', [...local, 'x-a: b\0c'], 400],
    ['an expectation of nobody', [...local, 'expect: miracle'], 417],
  ])('%s', async (_, headers, status) => {
    expect(
      statusOf(await exchange(port, requestText('POST', route, [...headers, 'content-type: application/json']))),
    ).toBe(status);
  });

  it('URLs that are long are unknown, or refused before they are looked at', async () => {
    expect(statusOf(await exchange(port, requestText('GET', `/${'a'.repeat(10_000)}`)))).toBe(404);
    expect(statusOf(await exchange(port, requestText('GET', `/v1/models/${'a'.repeat(10_000)}`)))).toBe(404);
    expect(statusOf(await exchange(port, requestText('GET', `/${'a'.repeat(100_000)}`)))).toBe(431);
    expect(statusOf(await exchange(port, requestText('GET', `/health?${'a=1&'.repeat(3000)}`)))).toBe(200);
  });

  it('bodies are read to their limit, whether they tell their length or not', async () => {
    const chunk = `100000\r\n${'x'.repeat(2 ** 20)}\r\n`;
    const told = [...local, 'content-type: application/json', 'content-length: 5000000'];
    expect(statusOf(await exchange(port, requestText('POST', route, told)))).toBe(413);
    const client = new RawClient(port);
    client.write(
      requestText('POST', route, [...local, 'content-type: application/json', 'transfer-encoding: chunked']),
    );
    for (let i = 0; i < 6; i++) client.write(chunk);
    await expect.poll(() => statusOf(client.received)).toBe(413);
  });

  it('a body that is longer than it says is another request, and no good one', async () => {
    const body = JSON.stringify(chat);
    const reply = await exchange(
      port,
      requestText('POST', route, ['host: localhost'], body),
      'x'.repeat(50),
      '\r\n\r\n',
    );
    expect([...reply.matchAll(/HTTP\/1\.1 (\d+)/g)].at(-1)![1]).toBe('400');
  });

  it('a compressed body is refused as what it is not', async () => {
    const compressed = [...local, 'content-encoding: gzip', 'content-type: application/json', 'content-length: 4'];
    expect(statusOf(await exchange(port, requestText('POST', route, compressed), '\x1f\x8b\x08\0'))).toBe(400);
  });
});

describe('requests with random faults', () => {
  it('are answered or closed, and never a fault of ours', async () => {
    const whole = Buffer.from(
      postText(route, { ...chat, stop: ['x'], logit_bias: { 5: 1 }, stream: true }).replace(
        '\r\n',
        '\r\nconnection: close\r\n',
      ),
    );
    const statuses = new Map<number, number>();
    const mutated = (random: Random) => {
      const bytes = Buffer.from(whole);
      for (let i = random.below(4); i >= 0; i--) {
        const at = random.below(bytes.length);
        if (random.below(3) === 0) bytes.copyWithin(at, random.below(bytes.length));
        else bytes[at] = random.pick([random.below(256), ...Buffer.from('{}[]",:0-9e\r\n\0')]);
      }
      return random.below(8) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes;
    };
    await Promise.all(
      Array.from({ length: 400 }, async (_, index) => {
        const client = new RawClient(port);
        client.write(mutated(new Random(5, index)));
        client.socket.end(); // some wait for a rest that does not come
        const status = statusOf(await client.untilClosed());
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }),
    );
    expect([...statuses.keys()].filter((status) => status >= 500)).toEqual([]);
    expect(statuses.get(400)).toBeGreaterThan(50);
  }, 20_000);
});
