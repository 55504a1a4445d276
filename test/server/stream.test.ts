import { connect, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { chat, type Json, parseEvents, post, start } from './harness.js';

const route = '/v1/chat/completions';
const never = () => new Promise<never>(() => undefined);

/** A request over a bare socket, which the test reads from, or does not. */
function rawPost(port: number, path: string, body: object): Socket {
  const text = JSON.stringify(body);
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => {
    socket.destroy();
  });
  socket.on('error', () => undefined);
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
  );
  return socket;
}

function streamed(url: string, body: object = chat): Promise<Response> {
  return fetch(url + route, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
}

describe('a stream', () => {
  it('has the headers of server-sent events', async () => {
    const { url } = await start();
    const response = await streamed(url);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(response.headers.get('cache-control')).toBe('no-cache');
    expect(response.headers.get('x-request-id')).toMatch(/^req-/);
    await response.text();
  });

  it('shows each token before the next one is made', async () => {
    const { url, model } = await start();
    let go: () => void = () => undefined;
    model.step = () =>
      new Promise<void>((resolve) => {
        go = resolve;
      });
    model.reply = 'abc';
    const reader = (await streamed(url)).body!.pipeThrough(new TextDecoderStream()).getReader();
    const texts: string[] = [];
    for (let i = 0; i < 3; i++) {
      const { value } = await reader.read();
      texts.push(
        parseEvents(value!)
          .map(({ choices }) => choices?.[0].delta.content ?? '')
          .join(''),
      );
      go();
    }
    expect(texts).toEqual(['a', 'b', 'c']);
  });

  it('writes what a step brings to all answers at once', async () => {
    const { port, model } = await start();
    model.reply = 'abc';
    model.step = () => new Promise((resolve) => setImmediate(resolve));
    const socket = rawPost(port, route, { ...chat, stream: true, n: 4 });
    let received = '';
    socket.on('data', (data) => {
      received += data;
    });
    await expect.poll(() => received).toContain('\r\n0\r\n\r\n');
    const writes = received.match(/\r\n[0-9a-f]+\r\ndata: /g)!; // each becomes a chunk of the HTTP response
    expect(writes).toHaveLength(3);
    expect(received.match(/"content":"[abc]"/g)).toHaveLength(12);
  });

  it('sends comments while a prompt waits', async () => {
    const { url, model } = await start({ limits: { openAfterMs: 10, keepAliveMs: 20 } });
    let go: () => void = () => undefined;
    model.prefill = () =>
      new Promise<void>((resolve) => {
        go = resolve;
      });
    const response = await streamed(url);
    setTimeout(() => go(), 150);
    const text = await response.text();
    expect(text).toMatch(/^data: .*"role":"assistant".*\n\n(: keep-alive\n\n){2,}data: /);
    expect(parseEvents(text).at(-1)).toBe('[DONE]');
  });

  it('tells of an error on its way, and ends', async () => {
    const { url, model } = await start();
    model.failure = { after: 2, error: new EngineError('NO_TOKEN_ALLOWED', { position: 3 }) };
    const response = await streamed(url);
    expect(response.status).toBe(200);
    const events = parseEvents(await response.text());
    expect(events.at(-1)).toEqual({
      error: {
        message: expect.stringMatching(/^no token is allowed at position 3/),
        type: 'invalid_request_error',
        param: null,
        code: 'no_token_allowed',
      },
    });
    expect(events).toHaveLength(4);
    expect(model.running).toBe(0);
  });

  it('tells of a deadline that passed, before it began and on its way', async () => {
    const { url, model } = await start({ limits: { deadlineMs: 50 } });
    model.step = never;
    expect(parseEvents(await (await streamed(url)).text()).at(-1).error.code).toBe('deadline_exceeded');
    model.prefill = never;
    const response = await streamed(url);
    expect([response.status, ((await response.json()) as Json).error.code]).toEqual([504, 'deadline_exceeded']);
    expect((await post(url + route, chat)).status).toBe(504);
    expect(model.running).toBe(0);
  });

  it('that is cut off by a shutdown says so', async () => {
    const { app, url, model } = await start();
    model.step = never;
    const response = await streamed(url);
    app.activity.drain();
    app.activity.abort();
    expect(parseEvents(await response.text()).at(-1).error.code).toBe('shutting_down');
    await app.activity.idle();
    expect(model.running).toBe(0);
  });
});

describe('a client that goes away', () => {
  it.each([
    ['during prefill of a stream', true, 'prefill'],
    ['during prefill of a whole answer', false, 'prefill'],
    ['between tokens of a stream', true, 'step'],
    ['between tokens of a whole answer', false, 'step'],
  ] as const)('%s ends its generation at once', async (_, stream, phase) => {
    const { app, port, model } = await start();
    model[phase] = never;
    const socket = rawPost(port, route, { ...chat, stream });
    await expect.poll(() => model.running).toBe(1);
    socket.destroy();
    await expect.poll(() => [model.running, model.aborted]).toEqual([0, 1]);
    await app.activity.idle();
  });

  it('and says goodbye properly ends its generation too', async () => {
    const { port, model } = await start();
    model.step = never;
    const socket = rawPost(port, route, { ...chat, stream: true });
    socket.resume();
    await expect.poll(() => model.running).toBe(1);
    socket.end();
    await expect.poll(() => [model.running, model.aborted]).toEqual([0, 1]);
  });

  it('leaves the other requests alone', async () => {
    const { url, port, model } = await start();
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    model.step = () => gate;
    const other = post(url + route, chat);
    const socket = rawPost(port, route, { ...chat, stream: true });
    await expect.poll(() => model.running).toBe(2);
    socket.destroy();
    await expect.poll(() => model.running).toBe(1);
    go();
    expect((await other).json.choices[0].message.content).toBe('Hello, world');
  });
});

describe('a client that does not read', () => {
  // More than the system's socket buffers take: 200 bytes of JSON for every letter.
  const long = 'x'.repeat(150_000);

  it('holds back its own generation, gets all of it once it reads', async () => {
    const { port, model } = await start();
    model.reply = long;
    const socket = rawPost(port, route, { ...chat, stream: true });
    socket.pause();
    let before = -1;
    await expect
      .poll(
        () => {
          const still = model.produced === before && before > 0;
          before = model.produced;
          return still;
        },
        { interval: 100, timeout: 10_000 },
      )
      .toBe(true);
    expect(model.produced).toBeLessThan(long.length / 2);
    expect(model.running).toBe(1);
    let received = 0;
    let end = '';
    socket.on('data', (data) => {
      received += data.length;
      end = data.toString('latin1').slice(-60);
    });
    socket.resume();
    await expect.poll(() => end, { timeout: 20_000 }).toContain('[DONE]');
    expect(received).toBeGreaterThan(150 * long.length);
    expect(model.produced).toBe(long.length);
  }, 30_000);

  it('is given up after a while, and what it held is free', async () => {
    const { app, port, model } = await start({ limits: { readerTimeoutMs: 200 } });
    model.reply = long;
    const socket = rawPost(port, route, { ...chat, stream: true });
    socket.pause();
    await expect.poll(() => model.aborted, { timeout: 10_000 }).toBe(1);
    await app.activity.idle();
    expect(model.running).toBe(0);
    expect(model.produced).toBeLessThan(long.length / 2);
    const connections = () => new Promise<number>((resolve) => app.server.getConnections((_, count) => resolve(count)));
    await expect.poll(connections).toBe(0);
  });

  it('is waited for once, however many prompts it has', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on('warning', onWarning);
    onTestFinished(() => void process.off('warning', onWarning));
    const { port, model } = await start({ limits: { readerTimeoutMs: 200 } });
    model.reply = long;
    rawPost(port, '/v1/completions', { prompt: Array(20).fill('a'), max_tokens: long.length, stream: true }).pause();
    await expect.poll(() => model.aborted, { timeout: 10_000 }).toBe(20);
    expect(warnings.map(({ message }) => message)).toEqual([]);
  });

  it('of a whole answer is given up too', async () => {
    const { app, port, model } = await start({ limits: { readerTimeoutMs: 200 } });
    model.reply = '\u20ac'.repeat(200_000);
    model.generate = async function* ({ signal }) {
      const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 };
      const timings = { queueMs: 0, ttftMs: 0, prefillTokensPerSecond: 0, decodeTokensPerSecond: 0, totalMs: 0 };
      expect(signal!.aborted).toBe(false);
      const text = this.reply.repeat(20);
      yield { index: 0, text, tokenIds: [1], outcome: { finishReason: 'stop', usage, timings } };
    };
    rawPost(port, route, chat).pause();
    const connections = () => new Promise<number>((resolve) => app.server.getConnections((_, count) => resolve(count)));
    await expect.poll(connections).toBe(1);
    await expect.poll(connections, { timeout: 5000 }).toBe(0);
  });

  it('does not slow another client down', async () => {
    const { url, port, model } = await start();
    model.reply = long;
    const socket = rawPost(port, route, { ...chat, stream: true });
    socket.pause();
    await expect.poll(() => model.produced).toBeGreaterThan(1000);
    expect((await post(url + route, { ...chat, max_tokens: 3 })).json.choices[0].message.content).toBe('xxx');
  });
});
