import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { runCli } from './run-cli.js';
import { writeTinyChatModel } from './tiny-chat-model.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'engine-serve-'));
/** Long enough that an answer to the end of its context takes seconds. */
const model = writeTinyChatModel(join(folder, 'tiny.gguf'), undefined, 8192);

/** A running `engine serve`; its log is read line by line. */
class Server {
  readonly lines: Record<string, unknown>[] = [];
  stderr = '';
  readonly exit: Promise<number | null>;
  readonly #child: ChildProcess;
  #onLine: () => void = () => undefined;

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    this.#child = spawn(process.execPath, [main, 'serve', '-m', model, '--port', '0', ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let rest = '';
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) if (line.startsWith('{')) this.lines.push(JSON.parse(line));
      this.#onLine();
    });
    this.exit = new Promise((resolve) => this.#child.on('close', resolve));
    running.push(this);
  }

  /** The first line whose message begins so. */
  async line(message: string): Promise<Record<string, unknown>> {
    for (;;) {
      const found = this.lines.find(({ msg }) => String(msg).startsWith(message));
      if (found !== undefined) return found;
      const more = new Promise<'more'>((resolve) => {
        this.#onLine = () => resolve('more');
      });
      if ((await Promise.race([more, this.exit])) !== 'more') throw new Error(`no line ${message}: ${this.stderr}`);
    }
  }

  async url(): Promise<string> {
    const { msg } = await this.line('listening on ');
    return String(msg).split(' ').at(-1)!;
  }

  async ready(): Promise<string> {
    await this.line('ready');
    return this.url();
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

const running: Server[] = [];
afterEach(async () => {
  for (const server of running.splice(0)) {
    server.signal('SIGKILL');
    await server.exit;
  }
});

const completion = (url: string, body: Record<string, unknown>, key?: string) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key !== undefined && { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model: 'tiny', prompt: 'Once', ...body }),
  });

describe('engine serve', () => {
  it('listens before the model is loaded, then completes', async () => {
    const server = new Server([]);
    const url = await server.url();
    const statuses: number[] = [];
    while (statuses.at(-1) !== 200 && statuses.length < 1000) statuses.push((await fetch(`${url}/health`)).status);
    expect(new Set(statuses.slice(0, -1))).toEqual(new Set(statuses.length > 1 ? [503] : []));
    // The log is written beside the answers, a moment after or before.
    await expect.poll(() => server.lines.map(({ msg }) => msg).slice(0, 2)).toEqual([`listening on ${url}`, 'ready']);

    const metrics = async () => (await fetch(`${url}/metrics`)).text();
    const generated = async () => Number(/^vllm:generation_tokens_total\{.*\} (\d+)$/m.exec(await metrics())![1]);
    const before = await generated();
    const response = await completion(url, { max_tokens: 5, temperature: 0, user: 'somebody' });
    expect(response.status).toBe(200);
    const { choices, usage } = (await response.json()) as { choices: { text: string }[]; usage: object };
    expect(choices[0]!.text).toBeTypeOf('string');
    expect(usage).toMatchObject({ completion_tokens: 5 });

    const line = await server.line('request');
    expect(line).toMatchObject({ operation: 'text_completion', model: 'tiny', status: 200, completion_tokens: 5 });
    expect(server.stderr).not.toContain('Once');
    expect((await generated()) - before).toBe(5);
    expect(await metrics()).toContain('vllm:request_success_total{finished_reason="length",model_name="tiny"} 1');
  });

  it('is guarded by keys from a file and the environment', async () => {
    const keys = join(folder, 'keys');
    writeFileSync(keys, 'alice:alice-has-this-key\n');
    const server = new Server(['--api-key-file', keys], { ENGINE_API_KEY: 'from-the-environment' });
    const url = await server.ready();
    expect((await completion(url, { max_tokens: 1 })).status).toBe(401);
    expect((await completion(url, { max_tokens: 1 }, 'alice')).status).toBe(401);
    expect((await completion(url, { max_tokens: 1 }, 'alice-has-this-key')).status).toBe(200);
    expect((await completion(url, { max_tokens: 1 }, 'from-the-environment')).status).toBe(200);
    expect((await fetch(`${url}/metrics`)).status).toBe(401);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it('lets a running stream end at SIGTERM, and refuses new requests meanwhile', async () => {
    const server = new Server([]);
    const url = await server.ready();
    const response = await completion(url, { max_tokens: 3000, ignore_eos: true, stream: true });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value ?? '';
    server.signal('SIGTERM');
    await server.line('draining');
    const refused = await completion(url, { max_tokens: 1 });
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await fetch(`${url}/health`)).status).toBe(503);
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) text += piece.value;
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    expect(await server.exit).toBe(0);
    expect(server.lines.slice(-3).map(({ msg }) => msg)).toEqual(['draining', 'request', 'stopped']);
  });

  it('stops at once at the second signal', async () => {
    const server = new Server([]);
    const url = await server.ready();
    const response = await completion(url, { max_tokens: 8000, ignore_eos: true, stream: true });
    await response.body!.getReader().read();
    server.signal('SIGTERM');
    await server.line('draining');
    server.signal('SIGTERM');
    expect(await server.exit).toBe(143);
  });

  it('shows prompts in its log only when told to, and says so', async () => {
    const server = new Server(['--log-prompts']);
    const url = await server.ready();
    await (await completion(url, { max_tokens: 1, prompt: 'a fox' })).text();
    await server.line('request');
    expect(server.lines[0]).toMatchObject({ level: 40, msg: expect.stringContaining('--log-prompts') });
    expect(server.lines.filter(({ msg }) => msg === 'prompt')).toMatchObject([{ prompt: 'a fox' }]);
  });

  it('names its port however quiet the log is', async () => {
    const server = new Server(['--log-level', 'error']);
    while (!server.stderr.includes('\n')) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(server.stderr).toMatch(/^engine: listening on http:\/\/127\.0\.0\.1:\d+\n$/);
    const url = server.stderr.trimEnd().split(' ').at(-1);
    expect([200, 503]).toContain((await fetch(`${url}/health`)).status);
    server.signal('SIGINT');
    expect(await server.exit).toBe(0);
    expect(server.stderr.split('\n')).toHaveLength(2);
  });

  it('ends with the error of a model that cannot be loaded', async () => {
    const { code, stderr } = await runCli(['serve', '--port', '0', '-m', join(folder, 'absent.gguf')]);
    expect(stderr).toMatch(/engine: \[FILE_NOT_FOUND\]/);
    expect(code).toBe(2);
  });

  it.each([
    [['--host', '0.0.0.0'], /\[OPTION_INVALID\] --host is "0\.0\.0\.0"; expected a loopback address/],
    [['--api-key', 'short'], /\[OPTION_INVALID\] API key key-1 is "\*\*\*"; expected/],
    [['--port', '70000'], /\[OPTION_INVALID\] --port is 70000/],
    [['--request-timeout', '0'], /\[OPTION_INVALID\] --request-timeout is 0/],
    [['--cors-origin', 'https://example.com/'], /\[OPTION_INVALID\] --cors-origin is "https:\/\/example\.com\/"/],
    [['--cors-origin', '*', '--api-key', 'a-key-of-mine'], /\[OPTION_INVALID\] --cors-origins? is "\*"/],
    [['--batch-size', '0'], /\[OPTION_INVALID\] --batch-size is 0/],
  ])('refuses %s', async (args, message) => {
    const { code, stdout, stderr } = await runCli(['serve', '-m', model, '--port', '0', ...args]);
    expect(stderr).toMatch(message);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });
});
