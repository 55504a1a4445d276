import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { EngineError } from '../../base/errors.js';
import { summarize, summarizeRatios } from '../statistics.js';
import { CompletionClient } from './client.js';
import { type Objectives, summarizeLatency } from './latency.js';
import type { RunningServer } from './launch.js';
import { type LoadResult, runLoad } from './load.js';
import { parseMetrics, type Samples } from './prometheus.js';
import { MemoryMonitor, residentBytes } from './resident-memory.js';
import { makeServeRow, type PointRun, type ServeRow } from './serve-row.js';
import { type Contender, describeServer } from './servers.js';
import type { Workload } from './workload.js';

/** One kind of load: a row for each server. */
export interface LoadPoint {
  readonly name: string;
  /** Requests in flight at most; null: as many as arrive. */
  readonly concurrency: number | null;
  readonly durationMs: number | null;
  /** Before the measured ones; as many at once as are measured at once. */
  readonly numWarmup: number;
  /** What a row says about it. */
  readonly labels: Partial<ServeRow>;
  /** Other prompts for each number. */
  workload(run: number): Workload;
  /** The same load without a shared prefix: how much sooner first tokens come is reported. */
  readonly cold: LoadPoint | null;
}

export interface ServeOptions {
  /** The first one is compared with each of the others. */
  readonly servers: readonly Contender[];
  readonly points: readonly LoadPoint[];
  /** Of all servers in turn. */
  readonly rounds: number;
  readonly stream: boolean;
  readonly apiKey?: string | undefined;
  readonly objectives: Objectives;
  readonly signal: AbortSignal;
  readonly onProgress?: ((progress: ServeProgress) => void) | undefined;
}

export interface ServeProgress {
  readonly what: string;
  readonly done: number;
  readonly total: number;
  readonly failed: number;
}

/**
 * Measures servers in turn, A B A B, each with all loads; a ratio is that of the same load in the same round. Failed
 * requests are counted in the rows. Throws OPPONENT_FAILED if a server ends, or if it answers no request at all.
 */
export async function benchmarkServe(options: ServeOptions): Promise<ServeRow[]> {
  const { servers, points, rounds, signal } = options;
  setMaxListeners(0, signal); // each request in flight listens
  const runs = servers.map(() => points.map((): PointRun[] => []));
  for (let round = 0; round < rounds; round++) {
    for (const [server, contender] of servers.entries()) {
      const running = await contender.start(signal);
      try {
        for (const [index, point] of points.entries()) {
          const what = `${contender.name}, ${point.name}, round ${round + 1} of ${rounds}:`;
          const run = round * points.length + index;
          runs[server]![index]!.push(await measurePoint(running, contender.name, point, run, what, options));
        }
      } finally {
        await running.stop();
      }
    }
  }
  return points.flatMap((point, index) =>
    servers.map(({ name }, server) => {
      const own = runs[server]![index]!;
      const first = runs[0]![index]!;
      const cold = point.cold === null ? null : runs[server]![points.indexOf(point.cold)]!;
      return {
        ...makeServeRow(name, point.labels, own, options.objectives),
        ...(server > 0 && {
          ratio: summarizeRatios(first.map(tokenRate), own.map(tokenRate)),
          // How many times sooner the first server's tokens come.
          ...timeRatio('ttft_ratio', own, first, medianTtft),
          ...timeRatio('itl_ratio', own, first, medianGap),
        }),
        ...(cold !== null && timeRatio('ttft_cold_to_warm', cold, own, medianTtft)),
      };
    }),
  );
}

async function measurePoint(
  server: RunningServer,
  name: string,
  point: LoadPoint,
  run: number,
  what: string,
  { stream, apiKey, signal, onProgress }: ServeOptions,
): Promise<PointRun> {
  const startBytes = server.pid === null ? null : residentBytes(server.pid);
  const { model } = await describeServer(server.url, apiKey, signal);
  const client = new CompletionClient({ url: server.url, model, stream, apiKey });
  const { concurrency, durationMs, numWarmup } = point;
  const workload = point.workload(run);
  let failed = 0;
  const send: Parameters<typeof runLoad>[0]['send'] = async (planned, startMs) => {
    const record = await client.complete(planned, startMs, signal);
    if (record.error !== null) failed++;
    return record;
  };
  let monitor: MemoryMonitor | null = null;
  try {
    const say = (done: number, total: number) => onProgress?.({ what, done, total, failed });
    say(0, 1);
    const warmup = await runLoad({
      send,
      request: workload.warmup,
      count: numWarmup,
      durationMs: null,
      concurrency: concurrency ?? numWarmup,
      signal,
    });
    await checkAnswers(server, name, warmup, numWarmup);
    failed = 0;
    const before = await readMetrics(client, signal);
    if (server.pid !== null && startBytes !== null) monitor = new MemoryMonitor(server.pid, startBytes);
    const load = await runLoad({
      send,
      request: workload.request,
      count: workload.count,
      durationMs,
      concurrency,
      signal,
      onProgress: (done, ms) => say(durationMs === null ? done : ms, durationMs ?? workload.count ?? done),
    });
    const memory = monitor?.stop() ?? null;
    monitor = null;
    await checkAnswers(server, name, load, workload.count);
    const after = await readMetrics(client, signal);
    return { load, metrics: before !== null && after !== null ? { before, after } : null, memory };
  } finally {
    monitor?.stop();
    client.close();
  }
}

/** Until the end of a program that broke its connections is known. */
const END_MS = 300;

/** Throws OPPONENT_FAILED if the server is gone, or has answered nothing. */
async function checkAnswers(
  server: RunningServer,
  name: string,
  { records, gone }: LoadResult,
  count: number | null,
): Promise<void> {
  const answered = records.filter(({ error }) => error === null).length;
  if (gone === null && (answered > 0 || records.length === 0)) return;
  if (server.pid !== null) await sleep(END_MS);
  const end = server.failure();
  const reason = end ?? gone ?? records.find(({ error }) => error !== null)!.error!;
  const of = count === null ? '' : ` of ${count}`;
  const still = end === null && gone === null ? 'no request was answered' : `it ended after ${answered}${of} answers`;
  throw new EngineError('OPPONENT_FAILED', { opponent: name, reason: `${still}: ${reason}` });
}

async function readMetrics(client: CompletionClient, signal: AbortSignal): Promise<Samples | null> {
  try {
    return parseMetrics(await client.get('/metrics', signal));
  } catch (error) {
    if (error instanceof EngineError) throw error;
    return null; // not every server has them
  }
}

/** Of answers that were complete. */
function tokenRate({ load }: PointRun): number {
  const tokens = load.records.reduce((sum, { error, outputTokens }) => sum + (error === null ? outputTokens : 0), 0);
  return (1000 * tokens) / load.durationMs;
}

function medianTtft({ load }: PointRun): number | null {
  const answered = load.records.filter(({ error }) => error === null);
  return summarizeLatency(answered.flatMap(({ ttftMs }) => ttftMs ?? []))?.p50 ?? null;
}

function medianGap({ load }: PointRun): number | null {
  const answered = load.records.filter(({ error }) => error === null);
  return summarizeLatency(answered.flatMap(({ gapsMs }) => gapsMs))?.p50 ?? null;
}

function timeRatio(
  name: 'ttft_ratio' | 'itl_ratio' | 'ttft_cold_to_warm',
  slower: readonly PointRun[],
  faster: readonly PointRun[],
  time: (run: PointRun) => number | null,
): Partial<ServeRow> {
  const ratios = slower.flatMap((run, round) => {
    const [a, b] = [time(run), time(faster[round]!)];
    return a === null || b === null || b === 0 ? [] : [a / b];
  });
  return ratios.length === 0 ? {} : { [name]: summarize(ratios) };
}
