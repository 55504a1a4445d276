import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { benchmarkServe, type LoadPoint, type ServeOptions } from '../../src/benchmark/serve/serve.js';
import { engineServer, llamaServer, runningServer } from '../../src/benchmark/serve/servers.js';
import { syntheticWorkload } from '../../src/benchmark/serve/workload.js';
import { median } from '../../src/benchmark/statistics.js';
import { expectEngineError } from '../formats/engine-error.js';
import { type FakeAnswer, FakeServer } from './serve-fake-server.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-bench-serve-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const fakes: FakeServer[] = [];
async function fakeServer(answer?: (number: number) => FakeAnswer): Promise<FakeServer> {
  const fake = await FakeServer.start((_, number) => answer?.(number) ?? {});
  fakes.push(fake);
  return fake;
}
afterEach(async () => {
  await Promise.all(fakes.splice(0).map((fake) => fake.stop()));
});

const sizes = { promptTokens: 6, outputTokens: 8, prefixTokens: 0, isPrefixShared: false };

function point(more: Partial<LoadPoint> & { count?: number | null; requestRate?: number } = {}): LoadPoint {
  const { count = 10, requestRate = null, ...rest } = more;
  return {
    name: 'load',
    concurrency: 2,
    durationMs: null,
    numWarmup: 0,
    labels: {},
    workload: (run) => syntheticWorkload(sizes, { count, requestRate }, { vocabSize: 1000, seed: 0, run }),
    cold: null,
    ...rest,
  };
}

function measure(fake: FakeServer, load: LoadPoint, more: Partial<ServeOptions> = {}) {
  return benchmarkServe({
    servers: [runningServer(fake.url)],
    points: [load],
    rounds: 1,
    stream: true,
    objectives: { ttftMs: null, itlMs: null },
    signal: new AbortController().signal,
    ...more,
  });
}

/** Times of the client and those at which the server wrote may differ by what a busy machine adds. */
const TOLERANCE_MS = 25;

describe('a load on a server', () => {
  test('has the percentiles of the delays that the server had', async () => {
    // Every fifth answer is late.
    const fake = await fakeServer((number) => ({ ttft: number % 5 === 4 ? 150 : 40, gap: 15 }));
    const [row] = await measure(fake, point({ count: 20 }));
    const gaps = fake.writes.flatMap((times) => times.slice(1).map((time, i) => time - times[i]!));
    expect(row).toMatchObject({ requests: 20, failed: 0, errors: {}, prompt_tokens: 6, generated_tokens: 8 });
    expect(row!.itl_ms!.count).toBe(20 * 7);
    expect(Math.abs(row!.itl_ms!.p50 - median(gaps))).toBeLessThan(TOLERANCE_MS);
    expect(Math.abs(row!.itl_ms!.mean - gaps.reduce((a, b) => a + b) / gaps.length)).toBeLessThan(TOLERANCE_MS);
    expect(row!.ttft_ms!.p50).toBeGreaterThan(38);
    expect(row!.ttft_ms!.p50).toBeLessThan(150);
    expect(row!.ttft_ms!.p95).toBeGreaterThan(148);
    expect(row!.tpot_ms!.mean).toBeCloseTo(row!.itl_ms!.mean, 3);
    expect(row!.e2e_ms!.p50).toBeGreaterThan(40 + 7 * 14);
    expect(row!.tokens_per_second.median).toBeCloseTo((20 * 8) / row!.duration_seconds, 6);
    expect(row!.total_tokens_per_second.median).toBeCloseTo((20 * 14) / row!.duration_seconds, 6);
    expect(row!.client_cpu_percent).toBeGreaterThan(0);
  });

  test('keeps as many requests in flight as it says, each asking for exactly so many tokens', async () => {
    const fake = await fakeServer(() => ({ ttft: 10 }));
    await measure(fake, point({ concurrency: 4, count: 16 }));
    expect(fake.mostInFlight).toBe(4);
    expect(fake.bodies).toHaveLength(16);
    for (const body of fake.bodies) {
      expect(body).toMatchObject({ model: 'fake', max_tokens: 8, ignore_eos: true, stream: true });
      expect(body.prompt).toHaveLength(6);
    }
    expect(new Set(fake.bodies.map(({ prompt }) => prompt.join())).size).toBe(16);
  });

  test('with times of arrival does not wait for answers, and counts from the arrival', async () => {
    const fake = await fakeServer(() => ({ ttft: 100 }));
    await measure(fake, point({ concurrency: null, count: 12, requestRate: 200 }));
    expect(fake.mostInFlight).toBeGreaterThan(4);
    const [limited] = await measure(fake, point({ concurrency: 1, count: 6, requestRate: 200 }));
    expect(limited!.ttft_ms!.max).toBeGreaterThan(450); // the last one waited for five others
  });

  test('goes on for as long as it has time', async () => {
    const fake = await fakeServer(() => ({ ttft: 20 }));
    const [row] = await measure(fake, point({ count: null, durationMs: 200 }));
    expect(row!.requests).toBeGreaterThan(1);
    expect(row!.duration_seconds).toBeGreaterThanOrEqual(0.2);
  });

  test('without streaming has end-to-end times only', async () => {
    const fake = await fakeServer(() => ({ ttft: 30 }));
    const [row] = await measure(fake, point(), { stream: false });
    expect(row).toMatchObject({ failed: 0, generated_tokens: 8 });
    expect(row!.e2e_ms!.p50).toBeGreaterThan(28);
    expect(row).not.toHaveProperty('ttft_ms');
    expect(row).not.toHaveProperty('itl_ms');
  });

  test('counts every kind of failure, and none of their tokens', async () => {
    const answers: FakeAnswer[] = [{}, { status: 503 }, { tokens: 3 }, { breakAfter: 2, gap: 10 }, {}];
    const fake = await fakeServer((number) => answers[number % 5]!);
    const [row] = await measure(fake, point({ concurrency: 1 }));
    expect(row).toMatchObject({
      requests: 10,
      failed: 6,
      errors: { 'HTTP 503: the queue is full': 2, '3 tokens instead of 8': 2, ECONNRESET: 2 },
    });
    expect(row!.tokens_per_second.median * row!.duration_seconds).toBeCloseTo(4 * 8, 6);
    expect(row!.ttft_ms!.count).toBe(4);
  });

  test('counts requests within the objectives as goodput', async () => {
    const fake = await fakeServer((number) => ({ ttft: number % 2 === 0 ? 0 : 700 }));
    const [row] = await measure(fake, point(), { objectives: { ttftMs: 500, itlMs: 500 } });
    expect(row!.goodput!.median * row!.duration_seconds).toBeCloseTo(5, 6);
    expect(row).toMatchObject({ slo_ttft_ms: 500, slo_itl_ms: 500 });
  });

  test('has what the server says about it, without the time before', async () => {
    const fake = await fakeServer((number) => {
      const page = (hits: number, count: number) =>
        [
          `vllm:prefix_cache_hits_total{model_name="fake"} ${hits}`,
          `vllm:prefix_cache_queries_total{model_name="fake"} ${10 * count}`,
          `vllm:num_preemptions_total ${count}`,
          `vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="fake"} ${count}`,
          `vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="fake"} ${count}`,
        ].join('\n');
      fake.metrics = number < 2 ? page(100, 50) : page(100 + 3 * number, 50 + number);
      return {};
    });
    fake.metrics = 'vllm:num_preemptions_total 0';
    const [row] = await measure(fake, point({ numWarmup: 2, count: 9 }));
    expect(row!.requests).toBe(9);
    expect(row!.server).toEqual({
      ttft_ms: { p50: 50, p95: 95, p99: 99 },
      prefix_hit_rate: 0.3,
      preemptions: 10,
    });
  });
});

describe('servers', () => {
  test('are measured in turn with the same prompts, and compared within a round', async () => {
    const slow = await fakeServer(() => ({ ttft: 120, gap: 2 }));
    const fast = await fakeServer(() => ({ ttft: 10, gap: 2 }));
    const servers = [runningServer(fast.url), runningServer(slow.url)];
    const rows = await measure(fast, point({ count: 4 }), { servers, rounds: 3 });
    expect(rows.map(({ backend }) => `http://${backend}`)).toEqual([fast.url, slow.url]);
    expect(rows[0]).not.toHaveProperty('ratio');
    expect(rows[1]!.ratio!.runs).toBe(3);
    expect(rows[1]!.ratio!.median).toBeGreaterThan(1);
    expect(rows[1]!.ttft_ratio!.median).toBeGreaterThan(1.5);
    const promptsOf = (fake: FakeServer) => fake.bodies.map(({ prompt }) => prompt.join()).sort();
    expect(promptsOf(fast)).toEqual(promptsOf(slow));
    expect(new Set(promptsOf(fast)).size).toBe(12); // no round repeats another's
  });

  test('are compared with and without a shared prefix', async () => {
    const fake = await fakeServer();
    // As a prefix cache would: prompts that begin like an earlier one are fast.
    const known = new Set<string>();
    const server = await FakeServer.start(({ prompt }) => {
      const prefix = prompt.slice(0, 4).join();
      const isKnown = known.has(prefix);
      known.add(prefix);
      return { ttft: isKnown ? 5 : 100 };
    });
    fakes.push(server);
    const workloadOf = (isPrefixShared: boolean) => (run: number) =>
      syntheticWorkload(
        { ...sizes, prefixTokens: 4, isPrefixShared },
        { count: 4, requestRate: null },
        { vocabSize: 1000, seed: 0, run },
      );
    const cold = point({ numWarmup: 1, workload: workloadOf(false) });
    const warm = point({ numWarmup: 1, workload: workloadOf(true), cold });
    const rows = await measure(fake, cold, { servers: [runningServer(server.url)], points: [cold, warm] });
    expect(rows[0]).not.toHaveProperty('ttft_cold_to_warm');
    expect(rows[1]!.ttft_cold_to_warm!.median).toBeGreaterThan(1.5);
    expect(rows[1]!.prompt_tokens).toBe(10);
  });

  test('that answer nothing, or are gone, are named with the reason', async () => {
    const refusing = await fakeServer(() => ({ status: 429 }));
    await expectEngineError(() => measure(refusing, point()), 'OPPONENT_FAILED', 'no request was answered', 'HTTP 429');
    const dying = await fakeServer((number) => {
      if (number === 5) void dying.stop();
      return { ttft: 20 };
    });
    const message = 'it ended after 5 of 10 answers: ECONNREFUSED';
    await expectEngineError(() => measure(dying, point({ concurrency: 1 })), 'OPPONENT_FAILED', message);
    await expectEngineError(() => measure(dying, point()), 'OPPONENT_FAILED', 'ECONNREFUSED');
  });

  test('stop being asked when the run is aborted', async () => {
    const fake = await fakeServer(() => ({ ttft: 20_000 }));
    const abort = new AbortController();
    const run = measure(fake, point(), { signal: abort.signal });
    setTimeout(() => abort.abort(), 50);
    await expectEngineError(() => run, 'ABORTED');
    expect(fake.bodies).toHaveLength(2);
  });
});

/** A server of its own process that is given a port, or says its URL on stderr, and ends after so many requests. */
function program(name: string, requests: number): string {
  const path = join(folder, name);
  const code = `
    const http = require('node:http');
    const port = Number(process.argv[process.argv.indexOf('--port') + 1]);
    let left = ${requests};
    const server = http.createServer((request, response) => {
      if (request.url === '/health') return void response.end('ok');
      if (request.url === '/v1/models') return void response.end('{"data":[{"id":"fake"}]}');
      if (request.url !== '/v1/completions') return void response.writeHead(404).end();
      if (left-- === 0) { console.error('out of memory'); process.exit(3); }
      const event = (text, reason) => 'data: ' + JSON.stringify({ choices: [{ text, finish_reason: reason }] }) + '\\n\\n';
      response.end(event('x', null).repeat(8) + event('', 'length') + 'data: [DONE]\\n\\n');
    });
    server.listen(port, '127.0.0.1', () => console.error('listening on http://127.0.0.1:' + server.address().port + '/'));
  `;
  writeFileSync(path, `#!${process.execPath}\n${code}`);
  chmodSync(path, 0o755);
  return path;
}

describe('servers that are started here', () => {
  const options = { model: 'model.gguf', threads: 2, slots: 4, contextSize: 64 };

  test('are ended afterwards, and their memory is watched', async () => {
    const fake = await fakeServer();
    const llama = llamaServer(program('llama-server', 1000), options);
    const ours = engineServer([process.execPath, program('engine', 1000)], 'model.gguf', []);
    const rows = await measure(fake, point(), { servers: [ours, llama] });
    expect(rows.map(({ backend }) => backend)).toEqual(['engine-ts', 'llama.cpp']);
    for (const row of rows) {
      expect(row.failed).toBe(0);
      expect(row.rss_bytes!.start).toBeGreaterThan(1e6);
      expect(row.rss_bytes!.peak).toBeGreaterThanOrEqual(row.rss_bytes!.end);
      expect(row.rss_bytes).not.toHaveProperty('slope_per_minute'); // too short to say
    }
    const started = await llama.start(new AbortController().signal);
    const alive = () => process.kill(started.pid!, 0);
    expect(alive()).toBe(true);
    await started.stop();
    expect(alive).toThrow('ESRCH');
  });

  test('and die are reported with their last words', async () => {
    const fake = await fakeServer();
    const dying = llamaServer(program('dying', 7), options);
    await expectEngineError(
      () => measure(fake, point({ concurrency: 1 }), { servers: [dying] }),
      'OPPONENT_FAILED',
      'llama.cpp',
      'it ended after 7 of 10 answers: out of memory',
    );
  });

  test('and do not start are reported, as are those that do not exist', async () => {
    const path = join(folder, 'broken');
    writeFileSync(path, `#!${process.execPath}\nconsole.error('no such model'); process.exit(1);`);
    chmodSync(path, 0o755);
    const { signal } = new AbortController();
    await expectEngineError(() => llamaServer(path, options).start(signal), 'OPPONENT_FAILED', 'no such model');
    await expectEngineError(() => llamaServer(join(folder, 'nowhere'), options), 'FILE_NOT_FOUND', 'nowhere');
    const nobody = engineServer([join(folder, 'nobody')], 'model.gguf', []);
    await expectEngineError(() => nobody.start(signal), 'OPPONENT_FAILED', 'does not exist');
  });
});
