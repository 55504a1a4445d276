import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { EngineError } from '../../../src/base/errors.js';
import { post, start } from '../harness.js';
import { exchange, postText, RawClient, requestText, statusOf } from './raw.js';
import { expectIdle, messages, realServer } from './real-server.js';

const limits = { headersTimeoutMs: 500, requestTimeoutMs: 1000, readerTimeoutMs: 700 };
const server = await realServer({ batchSize: 16, maxSequences: 16 }, { apiKeys: [], limits });
const { engine, app, port, url } = server;

const route = '/v1/chat/completions';
const short = { messages, temperature: 0, max_tokens: 8 };
/** Until the context is full: half a second or more if nobody ends it. */
const endless = { messages, ignore_eos: true, stream: true };
const { text: expected } = await engine.complete({ messages, temperature: 0, maxTokens: 8 });

async function expectWell(): Promise<void> {
  await expectIdle(server);
  const { status, json } = await post(url + route, short);
  expect([status, json.choices[0].message.content]).toEqual([200, expected]);
}

afterEach(expectWell);

const connections = () => new Promise<number>((resolve) => app.server.getConnections((_, count) => resolve(count)));

describe('clients that send slowly', () => {
  const body = JSON.stringify(short);
  const head = requestText('POST', route, ['host: localhost'], body).slice(0, -body.length);

  it.each([
    ['headers', 'GET /health HTTP/1.1\r\nhost: localhost\r\n', `x-slow: ${'a'.repeat(1000)}`],
    ['a body', head, body],
    [
      'chunks of a body',
      `${head.replace(/content-length.*\r\n/, 'transfer-encoding: chunked\r\n')}`,
      '1\r\n \r\n'.repeat(500),
    ],
  ])('%s, forty at once, are told so and closed; others do not notice', async (_, first, rest) => {
    const slow = Array.from({ length: 40 }, () => new RawClient(port).write(first));
    const drips = slow.map((client) => client.drip(rest, 40));
    expect((await post(url + route, short)).status).toBe(200);
    const replies = await Promise.all(slow.map((client) => client.untilClosed()));
    for (const reply of replies) expect(statusOf(reply)).toBe(408);
    await Promise.all(drips);
  });
});

describe('clients that read nothing of a stream', () => {
  it('end after a while, and slow nobody down', async () => {
    const before = engine.stats().generatedTokens;
    // 3 kB for each of 1,000 tokens of 8 answers: the system's own buffers hold less.
    const body = { ...endless, n: 8, logprobs: true, top_logprobs: 20 };
    const deaf = Array.from({ length: 2 }, () => {
      const client = new RawClient(port).write(postText(route, body));
      client.socket.pause();
      return client;
    });
    await expect.poll(() => app.activity.running, { interval: 5 }).toBe(deaf.length);
    expect((await post(url + route, short)).json.choices[0].message.content).toBe(expected);
    await expect.poll(() => app.activity.running, { timeout: 15_000 }).toBe(0);
    expect(engine.stats().generatedTokens - before).toBeLessThan(deaf.length * 8 * 1000);
    for (const client of deaf) {
      client.socket.resume();
      expect(await client.untilClosed()).not.toContain('[DONE]');
    }
  });

  it('take little memory, however much there is for them to read', async () => {
    const { app, model, port } = await start({ limits });
    let produced = 0;
    model.generate = async function* ({ signal }) {
      for (; !signal!.aborted; await setImmediate()) {
        produced++;
        yield { index: 0, text: 'x'.repeat(10_000), tokenIds: [1] };
      }
      throw new EngineError('ABORTED', {});
    };
    const before = process.memoryUsage.rss();
    const deaf = Array.from({ length: 20 }, () => {
      const client = new RawClient(port).write(postText(route, endless));
      client.socket.pause();
      return client;
    });
    let peak = before;
    await expect.poll(() => app.activity.running, { interval: 5 }).toBe(deaf.length);
    const idle = () => {
      peak = Math.max(peak, process.memoryUsage.rss());
      return app.activity.running;
    };
    await expect.poll(idle, { interval: 5, timeout: 15_000 }).toBe(0);
    expect(peak - before).toBeLessThan(150e6);
    expect(produced).toBeGreaterThan(deaf.length * 25); // each got further than the server's own 256 KiB
  });
});

describe('clients that leave', () => {
  /** Tokens generated until nothing runs any more. */
  async function generatedUntilIdle(leave: () => Promise<unknown>): Promise<number> {
    const before = engine.stats().generatedTokens;
    await leave();
    await expectIdle(server);
    return engine.stats().generatedTokens - before;
  }
  const started = async (client: RawClient) => {
    await expect.poll(() => client.received, { interval: 5 }).toContain('data: ');
    return client;
  };

  it('while others run and they wait, are never begun', async () => {
    const running = Array.from({ length: 4 }, () => new RawClient(port).write(postText(route, { ...endless, n: 4 })));
    await Promise.all(running.map(started));
    const late = Array.from({ length: 20 }, () => new RawClient(port).write(postText(route, endless)));
    await expect.poll(() => app.activity.running, { interval: 5 }).toBe(24);
    for (const { socket } of late) socket.destroy();
    await expect.poll(() => [app.activity.running, engine.stats().waiting], { interval: 5 }).toEqual([4, 0]);
    for (const { socket } of running) socket.destroy();
  });

  it('while their prompt is computed, do not get it computed', async () => {
    const before = engine.stats().computedTokens;
    const asked = Array.from({ length: 8 }, (_, i) => ({ role: 'user', content: `${i}${' fox'.repeat(800)}` }));
    const clients = asked.map((message) =>
      new RawClient(port).write(postText(route, { ...endless, messages: [message] })),
    );
    const computed = () => engine.stats().computedTokens - before;
    await expect.poll(computed, { interval: 1 }).toBeGreaterThan(0);
    for (const { socket } of clients) socket.destroy();
    await expectIdle(server);
    expect(computed()).toBeLessThan(asked.length * 800);
  });

  it.each([
    ['by a reset', (client: RawClient) => client.socket.resetAndDestroy()],
    ['by hanging up', (client: RawClient) => client.socket.destroy()],
    ['by closing their half of the connection', (client: RawClient) => client.socket.end()],
  ])('in the middle of an answer %s, end it', async (_, leave) => {
    const tokens = await generatedUntilIdle(async () =>
      leave(await started(new RawClient(port).write(postText(route, endless)))),
    );
    expect(tokens).toBeLessThan(900);
  });

  it('with answers that wait behind others of the same connection, end them all', async () => {
    const tokens = await generatedUntilIdle(async () => {
      const client = new RawClient(port).write(...Array(5).fill(postText(route, endless)));
      await started(client);
      await expect.poll(() => app.activity.running, { interval: 5 }).toBe(5);
      client.socket.destroy();
    });
    expect(tokens).toBeLessThan(5 * 400); // most of them ran to their end once
  });

  it('a thousand of them, before or after they have asked', async () => {
    const partial = ['', 'G', 'POST /v1/completions HTTP/1.1\r\nhost: loc', postText(route, short).slice(0, -5)];
    for (let round = 0; round < 5; round++) {
      const clients = Array.from({ length: 200 }, (_, i) => new RawClient(port).write(partial[i % partial.length]!));
      await expect.poll(connections, { interval: 5 }).toBeGreaterThan(100);
      for (const { socket } of clients) socket.destroy();
    }
    await expect.poll(connections).toBeLessThan(10); // some are the test's own, kept alive
  });
});

describe('clients that send all their requests at once', () => {
  it('get the answers in their order', async () => {
    const texts = ['A fox', 'A wolf', 'A bear'];
    const body = (content: string) => ({ ...short, messages: [{ role: 'user', content }] });
    const alone = await Promise.all(
      texts.map(async (text) => (await post(url + route, body(text))).json.choices[0].message.content),
    );
    const reply = await exchange(
      port,
      ...texts.map((text) => postText(route, body(text))),
      ...Array(100).fill(requestText('GET', '/health', ['host: localhost'])),
      requestText('GET', '/health'),
    );
    const bodies = [...reply.matchAll(/^\{.*\}/gm)].map(([json]) => JSON.parse(json));
    expect(bodies).toHaveLength(texts.length + 101);
    expect(bodies.slice(0, 3).map(({ choices }) => choices[0].message.content)).toEqual(alone);
    expect(bodies.at(-1)).toEqual({ status: 'ok' });
  });

  it('get streams one after the other', async () => {
    const stream = { ...short, stream: true };
    const reply = await exchange(port, postText(route, stream), postText(route, stream), requestText('GET', '/health'));
    expect(reply.match(/\[DONE\]/g)).toHaveLength(2);
    expect(reply.lastIndexOf('[DONE]')).toBeLessThan(reply.indexOf('{"status":"ok"}'));
  });
});

describe('an old client', () => {
  it('that speaks HTTP/1.0 gets answers that end with the connection', async () => {
    const old = (body: object) => postText(route, body).replace('HTTP/1.1', 'HTTP/1.0');
    const whole = await exchange(port, old(short));
    expect(JSON.parse(whole.slice(whole.indexOf('\r\n\r\n'))).choices[0].message.content).toBe(expected);
    const stream = await exchange(port, old({ ...short, stream: true }));
    expect(stream).not.toMatch(/transfer-encoding/i);
    const lines = stream.slice(stream.indexOf('\r\n\r\n') + 4).split('\n\n');
    expect(lines.every((line) => line === '' || line.startsWith('data: '))).toBe(true);
    expect(lines.at(-2)).toBe('data: [DONE]');
  });

  it('that asks whether it may go on is told so', async () => {
    const body = JSON.stringify(short);
    const client = new RawClient(port);
    client.write(
      requestText('POST', route, ['host: localhost', 'connection: close', 'expect: 100-continue'], body).slice(
        0,
        -body.length,
      ),
    );
    await expect.poll(() => client.received).toContain('100 Continue');
    client.write(body);
    expect(await client.untilClosed()).toContain('"finish_reason":"length"');
  });

  it('that only connects is let go after a while', async () => {
    const client = new RawClient(port);
    await sleep(50);
    expect(statusOf(await client.untilClosed())).toBe(408);
  });
});
