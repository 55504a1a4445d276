import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { eventually, examplePath } from './run-example.js';

interface Message {
  event: string;
  data: { text?: string; finishReason?: string; usage?: { completionTokens: number } };
}

function messagesOf(stream: string): Message[] {
  return stream
    .split('\n\n')
    .filter((part) => part !== '')
    .map((part) => {
      const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(part)!;
      return { event: event!, data: JSON.parse(data!) as Message['data'] };
    });
}

describe('docs/examples/fastify-service', () => {
  let service: ChildProcess;
  let url: string;

  beforeEach(async () => {
    service = spawn(process.execPath, [examplePath('fastify-service/service.mjs')], {
      env: { ...process.env, PORT: '0', LOG_LEVEL: 'silent', MAX_REQUESTS: '3' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(service.stdout!, 'data')) as [Buffer];
    url = /http:\S+/.exec(line.toString())![0];
    await eventually('the model is loaded', async () => (await fetch(`${url}/health`)).status === 200);
  });

  afterEach(async () => {
    if (service.exitCode !== null) return;
    service.kill('SIGKILL');
    await once(service, 'exit');
  });

  const post = (body: unknown, signal: AbortSignal | null = null) =>
    fetch(`${url}/answer`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal,
    });
  const load = async () => {
    const { running, waiting } = (await (await fetch(`${url}/health`)).json()) as Record<string, number>;
    return running! + waiting!;
  };

  it('streams an answer as server-sent events', async () => {
    const response = await post({ prompt: 'Once upon a time', maxTokens: 20, temperature: 0 });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const messages = messagesOf(await response.text());
    expect(messages.slice(0, -1).every(({ event, data }) => event === 'text' && data.text !== '')).toBe(true);
    expect(messages.length).toBeGreaterThan(5);
    expect(messages.at(-1)).toMatchObject({
      event: 'end',
      data: { finishReason: 'length', usage: { completionTokens: 20 } },
    });
  });

  it('refuses what is not in the schema, and what the engine refuses', async () => {
    const codeOf = async (response: Response) => [
      response.status,
      ((await response.json()) as { error: { code: string } }).error.code,
    ];
    for (const body of [
      {},
      { prompt: '' },
      { prompt: 'a', maxTokens: 1e9 },
      { prompt: 'a', top_k: 1 },
      { prompt: 5 },
    ]) {
      expect(await codeOf(await post(body))).toEqual([400, 'FST_ERR_VALIDATION']);
    }
    expect(await codeOf(await post({ prompt: 'word '.repeat(3000) }))).toEqual([400, 'PROMPT_TOO_LONG']);
    expect((await post({ prompt: 'x'.repeat(70_000) })).status).toBe(413);
    expect(await load()).toBe(0);
  });

  it('has nothing left running when a client has gone', async () => {
    const hangUp = new AbortController();
    const response = await post({ prompt: 'Once', maxTokens: 900, temperature: 0 }, hangUp.signal);
    await response.body!.getReader().read();
    expect(await load()).toBe(1);
    hangUp.abort();
    await eventually('the answer has ended', async () => (await load()) === 0);
  });

  it('serves others while clients do not read, and tells the next to come back', async () => {
    const body = JSON.stringify({ prompt: 'Once', maxTokens: 900, temperature: 0 });
    const head = `POST /answer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
    const lazy = [1, 2].map(() => connect(Number(new URL(url).port), '127.0.0.1').pause());
    for (const socket of lazy) socket.write(`${head}\r\n\r\n${body}`);
    await eventually('both are running', async () => (await load()) === 2);
    const other = await post({ prompt: 'A fox', maxTokens: 900, temperature: 0 });
    expect(other.status).toBe(200);
    const refused = await post({ prompt: 'A fox' });
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('1');
    await other.body!.cancel();
    for (const socket of lazy) socket.destroy();
    await eventually('all have ended', async () => (await load()) === 0);
  });

  it('lets an answer end on SIGTERM', async () => {
    const response = await post({ prompt: 'Once', maxTokens: 200, temperature: 0 });
    const exit = once(service, 'exit');
    service.kill('SIGTERM');
    const last = messagesOf(await response.text()).at(-1);
    expect(last).toMatchObject({ event: 'end', data: { usage: { completionTokens: 200 } } });
    expect((await exit)[0]).toBe(0);
  });
});
