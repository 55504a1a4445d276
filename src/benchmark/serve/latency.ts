import { percentile } from '../../evaluation/percentile.js';
import type { RequestRecord } from './request-record.js';

/** In milliseconds. */
export interface Latency {
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
  readonly count: number;
}

/** Null of nothing. */
export function summarizeLatency(samples: readonly number[]): Latency | null {
  if (samples.length === 0) return null;
  const ascending = Float32Array.from(samples).sort();
  const [p50, p95, p99] = [50, 95, 99].map((percent) => percentile(ascending, percent)) as [number, number, number];
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  return { mean, p50, p95, p99, max: ascending.at(-1)!, count: samples.length };
}

/** What a request must keep to be counted in goodput (Zhong et al.: DistServe, OSDI 2024); in milliseconds. */
export interface Objectives {
  readonly ttftMs: number | null;
  /** That 99 % of the gaps between its tokens keep. */
  readonly itlMs: number | null;
}

export function meets(record: RequestRecord, { ttftMs, itlMs }: Objectives): boolean {
  if (record.error !== null) return false;
  if (ttftMs !== null && (record.ttftMs === null || record.ttftMs > ttftMs)) return false;
  if (itlMs === null || record.gapsMs.length === 0) return true;
  return percentile(Float32Array.from(record.gapsMs).sort(), 99) <= itlMs;
}

/** Mean time of a token after the first, in milliseconds; null for answers of one token or without streaming. */
export function timePerToken({ gapsMs, ttftMs, outputTokens }: RequestRecord): number | null {
  if (ttftMs === null || outputTokens < 2) return null;
  return gapsMs.reduce((sum, gap) => sum + gap, 0) / (outputTokens - 1);
}
