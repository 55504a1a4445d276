import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { ServeReport } from '../../src/cli/bench-serve-output.js';
import { FakeServer } from '../benchmark/serve-fake-server.js';
import { runCli, runJson } from './run-cli.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-bench-serve-cli-'));
/** Temporary files of the program go here, so that what is left over can be seen. */
const scratch = mkdtempSync(join(tmpdir(), 'engine-bench-serve-scratch-'));
afterAll(() => {
  for (const path of [folder, scratch]) rmSync(path, { recursive: true, force: true });
});
const env = { TMPDIR: scratch, TEMP: scratch, SERVER_KEY: 'secret' };
const small = ['--prompt-tokens', '8', '--output-tokens', '4', '--num-requests', '6'];

async function withFake(run: (fake: FakeServer) => Promise<void>, ...answer: Parameters<typeof FakeServer.start>) {
  const fake = await FakeServer.start(...answer);
  try {
    await run(fake);
  } finally {
    await fake.stop();
  }
}

describe('engine bench serve', () => {
  it('measures a server by its URL, prints tables and writes a report', () =>
    withFake(async (fake) => {
      const path = join(folder, 'report.json');
      const prefix = ['--shared-prefix-tokens', '16', '--slo-ttft-ms', '1000'];
      const args = ['bench', 'serve', '--url', `${fake.url}/`, '--concurrency', '1,3', ...small, ...prefix];
      const { code, stdout, stderr } = await runCli([...args, '--json', path], { env });
      expect({ code, stderr }).toEqual({ code: 0, stderr: `wrote ${path}\n` });
      for (const text of ['closed loop, cold prefix', 'warm prefix', 'TTFT 50 %', 'goodput/s', 'client CPU']) {
        expect(stdout).toContain(text);
      }
      const report = JSON.parse(readFileSync(path, 'utf8')) as ServeReport;
      expect(Object.keys(report)).toEqual(['machine', 'commit', 'command', 'model', 'seed', 'rows']);
      expect(report.model).toEqual({ name: 'fake' });
      expect(report.rows.map(({ batch, prefix }) => [batch, prefix])).toEqual([
        [1, 'cold'],
        [1, 'warm'],
        [3, 'cold'],
        [3, 'warm'],
      ]);
      for (const row of report.rows) {
        expect(row).toMatchObject({ name: 'serve', arrivals: 'closed', prompt_tokens: 24, generated_tokens: 4 });
        expect(row).toMatchObject({ requests: 6, failed: 0, stream: true, shared_prefix_tokens: 16 });
        expect(row.ttft_ms!.p99).toBeGreaterThan(0);
      }
      // The server knows 1000 token ids; the warm-up has as many requests as run at once.
      expect(fake.bodies).toHaveLength(2 * (1 + 6) + 2 * (3 + 6));
      expect(Math.max(...fake.bodies.flatMap(({ prompt }) => prompt))).toBeLessThan(1000);
    }));

  it('replays a trace, and arrivals of a Poisson process, the same for the same seed', () =>
    withFake(async (fake) => {
      const trace = join(folder, 'trace.jsonl');
      const line = (at: number, hash_ids: number[]) =>
        JSON.stringify({ timestamp: at, input_length: 1000, output_length: 20, hash_ids });
      writeFileSync(trace, `${line(0, [1, 2])}\n${line(100, [1, 3])}\n`);
      const url = ['bench', 'serve', '--url', fake.url, '--warmup', '1', '--seed', '7'];
      const scaled = ['--trace', trace, '--length-scale', '0.1', '--trace-speed', '2'];
      const { rows, seed } = await runJson<ServeReport>([...url, ...scaled], { env });
      expect(seed).toBe(7);
      expect(rows).toMatchObject([
        { arrivals: 'trace', trace: 'trace.jsonl', requests: 2, prompt_tokens: 100, generated_tokens: 2, batch: 0 },
      ]);
      const [, first, second] = fake.bodies;
      expect(second!.prompt.slice(0, 51)).toEqual(first!.prompt.slice(0, 51));
      expect(second!.prompt.slice(51)).not.toEqual(first!.prompt.slice(51));

      const poisson = [...url, '--request-rate', '200', ...small];
      expect((await runJson<ServeReport>(poisson, { env })).rows[0]).toMatchObject({ request_rate: 200, requests: 6 });
      await runCli(poisson, { env });
      // Requests that are in flight together arrive in any order.
      const promptsOf = (bodies: typeof fake.bodies) => bodies.map(({ prompt }) => prompt.join()).sort();
      const [a, b] = [promptsOf(fake.bodies.slice(3, 10)), promptsOf(fake.bodies.slice(10))];
      expect(a).toHaveLength(7);
      expect(b).toEqual(a);
    }));

  it('says which requests failed, and fails if all did', async () => {
    const busy = (_: unknown, number: number) => ({ status: number % 2 === 1 ? 503 : 200 });
    await withFake(async (fake) => {
      const args = ['bench', 'serve', '--url', fake.url, '--concurrency', '1', '--warmup', '0', ...small];
      const { code, stderr, stdout } = await runCli([...args, '--json'], { env });
      expect(code).toBe(0);
      expect(stderr).toContain('3 of 6 requests failed: 3 × HTTP 503: the queue is full');
      expect((JSON.parse(stdout) as ServeReport).rows[0]).toMatchObject({ failed: 3 });
    }, busy);
    await withFake(
      async (fake) => {
        const { code, stderr } = await runCli(['bench', 'serve', '--url', fake.url, ...small], { env });
        expect(code).toBe(2);
        expect(stderr).toContain('no request was answered: HTTP 500');
      },
      () => ({ status: 500 }),
    );
    const { code, stderr } = await runCli(['bench', 'serve', '--url', 'http://127.0.0.1:9', ...small], { env });
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining('ECONNREFUSED') });
  });

  it('starts our server and an opponent in turn, and ends both', async () => {
    const opponent = join(folder, 'llama-server');
    writeFileSync(
      opponent,
      `#!${process.execPath}
const event = (text, reason) => 'data: ' + JSON.stringify({ choices: [{ text, finish_reason: reason }] }) + '\\n\\n';
require('node:http').createServer((request, response) => {
  if (request.url === '/v1/models') response.end(JSON.stringify({ data: [{ id: process.argv.slice(2).join(' ') }] }));
  else response.end(event('x', null).repeat(4) + event('', 'length') + 'data: [DONE]\\n\\n');
}).listen(Number(process.argv.at(-1)), '127.0.0.1');
`,
    );
    chmodSync(opponent, 0o755);
    const tiny = ['--synthetic', '15m', '--threads', '1', '--concurrency', '2', '--rounds', '2'];
    const args = ['bench', 'serve', ...tiny, ...small, '--opponent-binary', opponent];
    const { model, rows } = await runJson<ServeReport>(args, { env });
    expect(model).toMatchObject({ name: '15m-q4_0.gguf', architecture: 'llama', parameters: 24_407_712 });
    expect(rows.map(({ backend }) => backend)).toEqual(['engine-ts', 'llama.cpp']);
    for (const row of rows) {
      expect(row).toMatchObject({ requests: 12, failed: 0, prompt_tokens: 8, generated_tokens: 4, threads: 1 });
      expect(row.rss_bytes!.start).toBeGreaterThan(1e7);
    }
    expect(rows[0]!.server).toMatchObject({ preemptions: 0 });
    expect(rows[0]!.server!.ttft_ms!.p50).toBeGreaterThan(0);
    expect(rows[1]!.ratio!.runs).toBe(2);
    expect(readdirSync(scratch)).toEqual([]);
  }, 120_000);

  it.each([
    [['--concurrency', '0'], '--concurrency is "0"'],
    [['--request-rate', '0'], '--request-rate is 0; expected a number from 0.001'],
    [['--prompt-tokens', '1.5'], '--prompt-tokens is 1.5; expected a whole number'],
    [['--prompt-tokens', '500', '--synthetic', '15m'], '--prompt-tokens is 500'],
    [['--trace', 'x.csv', '--request-rate', '1'], '--request-rate is 1; expected no --trace with it'],
    [['--trace', 'nowhere.csv'], 'nowhere.csv does not exist'],
    [['--duration', '5', '--num-requests', '5'], '--num-requests is 5; expected no --duration with it'],
    [['--prefix', 'warm'], '--prefix is "warm"; expected --shared-prefix-tokens with it'],
    [['--url', 'ftp://host'], '--url is "ftp://host"'],
    [['--url', 'http://127.0.0.1:9', '--threads', '2'], '--threads'],
    [['--url', 'http://127.0.0.1:9', '--api-key-env', 'NO_SUCH_KEY'], '--api-key-env is "NO_SUCH_KEY"'],
    [['--rounds', '0'], '--rounds is 0'],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await runCli(['bench', 'serve', ...args], { env });
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining(message) });
  });

  it('sends a key only where it is told to, and never writes it', () =>
    withFake(async (fake) => {
      const args = ['bench', 'serve', '--url', fake.url, '--concurrency', '1', ...small];
      const report = await runJson<ServeReport>([...args, '--api-key-env', 'SERVER_KEY'], { env });
      expect(new Set(fake.authorization)).toEqual(new Set(['Bearer secret']));
      expect(JSON.stringify(report)).not.toContain('secret');
      fake.authorization.length = 0;
      await runJson(args, { env });
      expect(new Set(fake.authorization)).toEqual(new Set([undefined]));
    }));
});
