import { difference, histogramPercentile, type Samples, sumOf } from './prometheus.js';

/** What a server says about a run itself, in its metrics; what it does not say is absent. */
export interface ServerSide {
  readonly ttft_ms?: ServerPercentiles;
  readonly itl_ms?: ServerPercentiles;
  readonly queue_ms?: ServerPercentiles;
  /** Part of the prompts' tokens that were in the prefix cache. */
  readonly prefix_hit_rate?: number;
  readonly preemptions?: number;
  /** Of a server on Node.js: how late its event loop was. */
  readonly event_loop_delay_ms?: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** As exact as the buckets of the histogram are narrow. */
export interface ServerPercentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** Between two looks of prom-client at the event loop, unless it is told otherwise. */
const LOOP_SAMPLE_MS = 10;

/** Pages of metrics before and after each run. Names are vLLM's; where it renamed one, both; and llama.cpp's. */
export function readServerSide(runs: readonly { readonly before: Samples; readonly after: Samples }[]): ServerSide {
  const added = sumOf(runs.map(({ before, after }) => difference(before, after)));
  const histogram = (...names: readonly string[]): ServerPercentiles | undefined => {
    for (const name of names) {
      const [p50, p95, p99] = [50, 95, 99].map((percent) => histogramPercentile(added, name, percent));
      if (p50 != null) return { p50: 1000 * p50, p95: 1000 * p95!, p99: 1000 * p99! };
    }
    return undefined;
  };
  // prom-client starts these afresh when they are read, and reports the time between two samples.
  const worst = (name: string) => {
    const values = runs.flatMap(({ after }) => after.get(name) ?? []);
    return values.length === 0 ? undefined : Math.max(0, 1000 * Math.max(...values) - LOOP_SAMPLE_MS);
  };
  const ttft = histogram('vllm:time_to_first_token_seconds');
  const itl = histogram('vllm:inter_token_latency_seconds', 'vllm:time_per_output_token_seconds');
  const queue = histogram('vllm:request_queue_time_seconds');
  const hits = hitRate(added);
  const preemptions = added.get('vllm:num_preemptions_total');
  const [p50, p99, max] = ['p50', 'p99', 'max'].map((which) => worst(`nodejs_eventloop_lag_${which}_seconds`));
  return {
    ...(ttft && { ttft_ms: ttft }),
    ...(itl && { itl_ms: itl }),
    ...(queue && { queue_ms: queue }),
    ...(hits !== undefined && { prefix_hit_rate: hits }),
    ...(preemptions !== undefined && { preemptions }),
    ...(p50 !== undefined && p99 !== undefined && max !== undefined && { event_loop_delay_ms: { p50, p99, max } }),
  };
}

function hitRate(added: Samples): number | undefined {
  const ratio = (hits: number | undefined, queries: number) =>
    hits === undefined || !(queries > 0) ? undefined : hits / queries;
  const cached = added.get('llamacpp:prompt_tokens_cached_total');
  return (
    ratio(added.get('vllm:prefix_cache_hits_total'), added.get('vllm:prefix_cache_queries_total') ?? 0) ??
    ratio(cached, (cached ?? 0) + (added.get('llamacpp:prompt_tokens_total') ?? 0))
  );
}
