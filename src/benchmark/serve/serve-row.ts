import type { BenchRow } from '../report.js';
import { type Summary, summarize } from '../statistics.js';
import { type Latency, meets, type Objectives, summarizeLatency, timePerToken } from './latency.js';
import type { LoadResult } from './load.js';
import type { Samples } from './prometheus.js';
import type { RequestRecord } from './request-record.js';
import type { ResidentMemory } from './resident-memory.js';
import { readServerSide, type ServerSide } from './server-side.js';

/**
 * A load on a server. Rates are one a round; times are those of all answered requests of all rounds. Lengths are means
 * of what was answered, `batch` is the limit of requests in flight (0: none), and `tokens_per_second` counts output.
 */
export interface ServeRow extends BenchRow {
  /** `closed`: the next request when one is done; `poisson` and `trace` have times of arrival. */
  readonly arrivals: 'closed' | 'poisson' | 'trace';
  /** Arrivals a second. */
  readonly request_rate?: number;
  readonly trace?: string;
  readonly shared_prefix_tokens?: number;
  /** Whether the prefix is in the server's cache, or every prompt has one of its own. */
  readonly prefix?: 'cold' | 'warm';
  /** Of a trace, in each round: longer than the context, so they were cut. */
  readonly cut_requests?: number;
  readonly stream: boolean;
  readonly requests: number;
  readonly failed: number;
  /** Number of requests that failed, by reason. */
  readonly errors: Readonly<Record<string, number>>;
  readonly duration_seconds: number;
  readonly requests_per_second: Summary;
  /** Prompts and answers. */
  readonly total_tokens_per_second: Summary;
  /** Requests a second that kept the objectives. */
  readonly goodput?: Summary;
  readonly slo_ttft_ms?: number;
  readonly slo_itl_ms?: number;
  readonly ttft_ms?: Latency;
  readonly itl_ms?: Latency;
  readonly tpot_ms?: Latency;
  readonly e2e_ms?: Latency;
  /** How many times sooner the first server's tokens come, medians, one ratio a round. */
  readonly ttft_ratio?: Summary;
  readonly itl_ratio?: Summary;
  /** Median TTFT without the shared prefix in the cache to that with it, one ratio a round. */
  readonly ttft_cold_to_warm?: Summary;
  /** What this client used of one processor, and part of the time that its event loop was busy. */
  readonly client_cpu_percent: number;
  readonly client_busy_percent: number;
  readonly server?: ServerSide;
  /** Of the server, in the last round. */
  readonly rss_bytes?: ResidentMemory;
}

/** One load on one server in one round. */
export interface PointRun {
  readonly load: LoadResult;
  /** Its metrics before and after; null if it has none. */
  readonly metrics: { readonly before: Samples; readonly after: Samples } | null;
  readonly memory: ResidentMemory | null;
}

/** Reasons that are told apart. */
const MOST_REASONS = 20;

export function makeServeRow(
  backend: string,
  labels: Partial<ServeRow>,
  runs: readonly PointRun[],
  { ttftMs, itlMs }: Objectives,
): ServeRow {
  const records = runs.flatMap(({ load }) => load.records);
  const answered = records.filter(({ error }) => error === null);
  const perSecond = (amount: (record: RequestRecord) => number) =>
    summarize(
      runs.map(({ load }) => {
        const sum = load.records.reduce((sum, record) => sum + (record.error === null ? amount(record) : 0), 0);
        return (1000 * sum) / load.durationMs;
      }),
    );
  const mean = (amount: (record: RequestRecord) => number) =>
    Math.round(answered.reduce((sum, record) => sum + amount(record), 0) / Math.max(1, answered.length));
  const times = {
    ttft_ms: summarizeLatency(answered.flatMap(({ ttftMs }) => ttftMs ?? [])),
    itl_ms: summarizeLatency(answered.flatMap(({ gapsMs }) => gapsMs)),
    tpot_ms: summarizeLatency(answered.flatMap((record) => timePerToken(record) ?? [])),
    e2e_ms: summarizeLatency(answered.map(({ e2eMs }) => e2eMs)),
  };
  const durationMs = runs.reduce((sum, { load }) => sum + load.durationMs, 0);
  const cpuMs = runs.reduce((sum, { load }) => sum + load.clientCpuMs, 0);
  const busyMs = runs.reduce((sum, { load }) => sum + load.clientBusy * load.durationMs, 0);
  const metrics = runs.flatMap(({ metrics }) => metrics ?? []);
  const memory = runs.at(-1)?.memory ?? null;
  const hasObjectives = ttftMs !== null || itlMs !== null;
  return {
    name: 'serve',
    arrivals: 'closed',
    stream: true,
    dtype: '',
    batch: 0,
    ...labels,
    backend,
    prompt_tokens: mean(({ promptTokens }) => promptTokens),
    generated_tokens: mean(({ outputTokens }) => outputTokens),
    tokens_per_second: perSecond(({ outputTokens }) => outputTokens),
    total_tokens_per_second: perSecond(({ promptTokens, outputTokens }) => promptTokens + outputTokens),
    requests_per_second: perSecond(() => 1),
    requests: records.length,
    failed: records.length - answered.length,
    errors: countErrors(records),
    duration_seconds: durationMs / 1000,
    ...(hasObjectives && { goodput: perSecond((record) => (meets(record, { ttftMs, itlMs }) ? 1 : 0)) }),
    ...(ttftMs !== null && { slo_ttft_ms: ttftMs }),
    ...(itlMs !== null && { slo_itl_ms: itlMs }),
    ...Object.fromEntries(Object.entries(times).filter(([, latency]) => latency !== null)),
    client_cpu_percent: (100 * cpuMs) / durationMs,
    client_busy_percent: (100 * busyMs) / durationMs,
    ...(metrics.length > 0 && { server: readServerSide(metrics) }),
    ...(memory !== null && { rss_bytes: memory }),
  };
}

function countErrors(records: readonly RequestRecord[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { error } of records) {
    if (error === null) continue;
    const reason = counts.has(error) || counts.size < MOST_REASONS ? error : 'other';
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return Object.fromEntries(counts);
}
