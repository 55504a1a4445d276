import { countOf, type Histogram, quantile, type Scrape, since } from './metrics.js';

/** Milliseconds over which percentiles and hit rates are taken, while anything happened in them. */
const WINDOW = 60_000;
/** Scrapes kept, for the charts: one a second over the window, with both its ends. */
const LENGTH = 61;

/** What the dashboard shows at one moment; null is "nothing to tell yet". Times in seconds, shares from 0 to 1. */
export interface Reading {
  /** Generated and prompt tokens per second since the scrape before. */
  readonly generated: number | null;
  readonly prompted: number | null;
  readonly running: number;
  readonly waiting: number;
  readonly kvUsage: number | null;
  readonly hitRate: number | null;
  readonly ttft: Percentiles | null;
  readonly interToken: Percentiles | null;
}

export interface Percentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly count: number;
}

/** The last minute of scrapes, and what they say. */
export class History {
  #scrapes: { readonly at: number; readonly scrape: Scrape }[] = [];
  #readings: Reading[] = [];

  get readings(): readonly Reading[] {
    return this.#readings;
  }

  /** Adds a scrape taken at a time in milliseconds. */
  add(scrape: Scrape, at: number): Reading {
    const last = this.#scrapes.at(-1);
    const generated = 'vllm:generation_tokens_total';
    // Counters start again when the server does, and then nothing before says anything.
    if (last && total(scrape, generated) < total(last.scrape, generated)) this.#scrapes = [];
    const previous = this.#scrapes.at(-1);
    const start = this.#scrapes.find((kept) => kept.at >= at - WINDOW)?.scrape;
    this.#scrapes = [...this.#scrapes, { at, scrape }].slice(-LENGTH);
    const rate = (name: string) =>
      previous ? ((total(scrape, name) - total(previous.scrape, name)) * 1000) / Math.max(1, at - previous.at) : null;
    const reading: Reading = {
      generated: rate(generated),
      prompted: rate('vllm:prompt_tokens_total'),
      running: total(scrape, 'vllm:num_requests_running'),
      waiting: total(scrape, 'vllm:num_requests_waiting'),
      kvUsage: scrape.values.get('vllm:kv_cache_usage_perc') ?? null,
      hitRate: hitRate(scrape, start),
      ttft: percentiles(scrape, start, 'vllm:time_to_first_token_seconds'),
      interToken: percentiles(scrape, start, 'vllm:inter_token_latency_seconds'),
    };
    this.#readings = [...this.#readings, reading].slice(-LENGTH);
    return reading;
  }
}

function total(scrape: Scrape, name: string): number {
  return scrape.values.get(name) ?? 0;
}

/** Of the prompt tokens of the window, or if there were none of all, the share that was found in the cache. */
function hitRate(now: Scrape, start: Scrape | undefined): number | null {
  const rate = (from: Scrape | undefined): number | null => {
    const gained = (name: string) => total(now, name) - (from ? total(from, name) : 0);
    const queries = gained('vllm:prefix_cache_queries_total');
    return queries > 0 ? gained('vllm:prefix_cache_hits_total') / queries : null;
  };
  return rate(start) ?? rate(undefined);
}

/** Of what was observed in the window, or if that is nothing of everything. */
function percentiles(now: Scrape, start: Scrape | undefined, name: string): Percentiles | null {
  const all = now.histograms.get(name);
  if (all === undefined) return null;
  const recent = since(all, start?.histograms.get(name));
  const used: Histogram = countOf(recent) > 0 ? recent : all;
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((q) => quantile(used, q));
  return p50 == null || p95 == null || p99 == null ? null : { p50, p95, p99, count: countOf(used) };
}
