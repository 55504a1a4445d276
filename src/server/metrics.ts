import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Outcome } from '../serving/completer.js';
import { type EngineStats, stepTokenBounds } from '../serving/served-model.js';
import { EventLoopDelay } from './event-loop-delay.js';
import { histogramText } from './histogram-text.js';
import type { RequestEnd, RequestObservation, RequestObserver, RequestStart } from './observer.js';
import { ProcessMetrics } from './process-metrics.js';

// Bounds are vLLM's (vllm/v1/metrics/loggers.py), so that its dashboards work, and finer ones below: on small models most
// times would fall under the first. Seconds.
const FIRST_TOKEN_SECONDS = [
  0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2.5, 5,
  7.5, 10, 20, 40, 80, 160, 640, 2560,
];
const TOKEN_SECONDS = [
  0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
  0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const REQUEST_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120,
  240, 480, 960, 1920, 7680,
];
/** 1, 2, 5, 10, … tokens, to the longest context any model has. */
const TOKENS = Array.from({ length: 19 }, (_, i) => [1, 2, 5][i % 3]! * 10 ** Math.floor(i / 3));

const QUANTILES = [0.5, 0.9, 0.99, 1] as const;

export interface MetricsOptions {
  /** The label `model_name` of everything under `vllm:`. */
  readonly modelName: string;
  /** Null until the model is loaded. */
  readonly stats: () => EngineStats | null;
}

/**
 * Prometheus metrics under vLLM's names. Counts and gauges of the engine are read when somebody asks; times are taken
 * from requests as they go. Histograms of times but those of tokens have one observation per answer, as vLLM counts them.
 */
export class Metrics implements RequestObserver {
  readonly #vllm = new Registry();
  readonly #process = new Registry();
  readonly #ofProcess = new ProcessMetrics(this.#process);
  readonly #delay = new EventLoopDelay();
  readonly #firstToken: Histogram;
  readonly #interToken: Histogram;
  readonly #promptTokens: Counter;
  readonly #finished: Counter<'finished_reason'>;
  readonly #requests: Counter<'operation' | 'status'>;
  readonly #observeOutcome: (outcome: Outcome) => void;
  readonly #observeRequest: ReturnType<typeof requestObserver>;

  constructor(private readonly options: MetricsOptions) {
    const { modelName, stats } = options;
    const registers = [this.#vllm];
    this.#vllm.setDefaultLabels({ model_name: modelName });
    registerEngine(this.#vllm, stats);

    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name: `vllm:${name}`, help, buckets, registers });
    this.#firstToken = histogram(
      'time_to_first_token_seconds',
      'From the arrival of a request to its first token.',
      FIRST_TOKEN_SECONDS,
    );
    this.#interToken = histogram('inter_token_latency_seconds', 'Between two tokens of an answer.', TOKEN_SECONDS);
    this.#promptTokens = new Counter({ name: 'vllm:prompt_tokens_total', help: 'Tokens of prompts.', registers });
    this.#finished = new Counter({
      name: 'vllm:request_success_total',
      help: 'Answers that came to their end.',
      labelNames: ['finished_reason'],
      registers,
    });
    for (const finished_reason of ['stop', 'length', 'abort']) this.#finished.inc({ finished_reason }, 0);
    this.#requests = new Counter({
      name: 'engine:requests_total',
      help: 'Requests by operation and HTTP status; 499: the client went away.',
      labelNames: ['operation', 'status'],
      registers,
    });
    this.#observeOutcome = outcomeObserver(histogram);
    this.#observeRequest = requestObserver(histogram);

    const delay = this.#delay;
    new Gauge({
      name: 'engine:event_loop_delay_seconds',
      help: 'How late the event loop was in the last half to whole minute.',
      labelNames: ['quantile'],
      registers: [this.#process],
      collect() {
        for (const quantile of QUANTILES) this.set({ quantile }, delay.seconds(quantile));
      },
    });
  }

  begin(start: RequestStart): RequestObservation {
    const begun = performance.now();
    const lastToken: number[] = []; // by index of the answer, milliseconds
    const firstToken = this.#firstToken;
    const interToken = this.#interToken;
    return {
      tokens(index, count) {
        const now = performance.now();
        const last = lastToken[index];
        lastToken[index] = now;
        let rest = count;
        if (last === undefined) {
          firstToken.observe((now - begun) / 1000);
          rest--;
        }
        if (rest <= 0) return;
        // Tokens that arrive together share the time since those before them.
        const seconds = last === undefined ? 0 : (now - last) / 1000 / rest;
        for (; rest > 0; rest--) interToken.observe(seconds);
      },
      end: (end) => this.#end(start, end),
    };
  }

  #end(start: RequestStart, { status, outcomes, promptTokens }: RequestEnd): void {
    const { operation } = start;
    this.#requests.inc({ operation, status: String(status) });
    this.#promptTokens.inc(promptTokens);
    for (const outcome of outcomes) {
      this.#finished.inc({ finished_reason: outcome.finishReason });
      this.#observeOutcome(outcome);
    }
    if (outcomes.length > 0) this.#observeRequest(start, outcomes);
    // Answers that nobody waits for any more have no outcome.
    const generates = operation === 'chat' || operation === 'text_completion';
    if (status === 499 && outcomes.length === 0 && generates) this.#finished.inc({ finished_reason: 'abort' });
  }

  /** What Prometheus reads. */
  async scrape(): Promise<{ contentType: string; text: string }> {
    const text = await Promise.all([this.#vllm.metrics(), this.#stepTokens(), this.#process.metrics()]);
    return { contentType: this.#vllm.contentType, text: text.join('\n') };
  }

  /** The engine counts its steps by their tokens. */
  #stepTokens(): string {
    const { modelName, stats } = this.options;
    const now = stats();
    return histogramText({
      name: 'vllm:iteration_tokens_total',
      help: 'Tokens of a step.',
      labels: { model_name: modelName },
      bounds: stepTokenBounds,
      counts: now?.stepsByTokens ?? new Array(stepTokenBounds.length + 1).fill(0),
      sum: now?.computedTokens ?? 0,
    });
  }

  /** Stops measuring: nothing of it is left behind. */
  close(): void {
    this.#ofProcess.close();
    this.#delay.stop();
  }
}

/** What the engine knows itself. */
function registerEngine(registry: Registry, stats: () => EngineStats | null): void {
  const registers = [registry];
  const gauge = (name: string, help: string, value: (stats: EngineStats) => number) =>
    new Gauge({
      name: `vllm:${name}`,
      help,
      registers,
      collect() {
        const now = stats();
        this.set(now === null ? 0 : value(now));
      },
    });
  const counter = (name: string, help: string, value: (stats: EngineStats) => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        const now = stats();
        this.reset();
        this.inc(now === null ? 0 : value(now));
      },
    });
  gauge('num_requests_running', 'Sequences that own blocks.', ({ running }) => running);
  gauge('num_requests_waiting', 'Sequences that wait.', ({ waiting }) => waiting);
  gauge('kv_cache_usage_perc', 'Share of the KV blocks that running sequences own, 0 to 1.', ({ blocks }) =>
    blocks.total === 0 ? 0 : blocks.used / blocks.total,
  );
  counter('vllm:prefix_cache_queries_total', 'Prompt tokens looked up.', (now) => now.prefixCache.queriedTokens);
  counter('vllm:prefix_cache_hits_total', 'Prompt tokens found.', (now) => now.prefixCache.hitTokens);
  counter('vllm:generation_tokens_total', 'Tokens generated.', (now) => now.generatedTokens);
  counter('vllm:num_preemptions_total', 'Sequences that lost their blocks to others.', (now) => now.preemptions);
  counter('engine:prefix_cache_evicted_blocks_total', 'Cached KV blocks given up for others.', (now) => {
    return now.prefixCache.evictedBlocks;
  });
}

type MakeHistogram = (name: string, help: string, buckets: number[]) => Histogram;

/** Records what a request asked for and the longest of its answers, once all are over. */
function requestObserver(histogram: MakeHistogram): (start: RequestStart, outcomes: readonly Outcome[]) => void {
  const numAnswers = histogram('request_params_n', 'Answers asked for.', [1, 2, 5, 10, 20]);
  const maxTokens = histogram('request_params_max_tokens', 'Tokens asked for at most.', TOKENS);
  const longest = histogram('request_max_num_generation_tokens', 'Tokens of the longest answer.', TOKENS);
  return ({ parameters: { n = 1, max_tokens } }, outcomes) => {
    numAnswers.observe(n);
    if (max_tokens !== undefined) maxTokens.observe(max_tokens);
    longest.observe(Math.max(...outcomes.map(({ usage }) => usage.completionTokens)));
  };
}

/** Records how an answer went, once it is over. */
function outcomeObserver(histogram: MakeHistogram): (outcome: Outcome) => void {
  const promptTokens = histogram('request_prompt_tokens', 'Tokens of the prompt.', TOKENS);
  const generatedTokens = histogram('request_generation_tokens', 'Tokens of the answer.', TOKENS);
  const endToEnd = histogram('e2e_request_latency_seconds', 'From the request to its end.', REQUEST_SECONDS);
  const queue = histogram('request_queue_time_seconds', 'Until the first step began.', REQUEST_SECONDS);
  const inference = histogram('request_inference_time_seconds', 'From the first step on.', REQUEST_SECONDS);
  const prefill = histogram('request_prefill_time_seconds', 'From the first step to the first token.', REQUEST_SECONDS);
  const decode = histogram('request_decode_time_seconds', 'From the first token to the last.', REQUEST_SECONDS);
  const perToken = histogram('request_time_per_output_token_seconds', 'Decode time by token.', TOKEN_SECONDS);
  return ({ usage, timings: { queueMs, ttftMs, totalMs } }) => {
    promptTokens.observe(usage.promptTokens);
    generatedTokens.observe(usage.completionTokens);
    endToEnd.observe(totalMs / 1000);
    queue.observe(queueMs / 1000);
    inference.observe((totalMs - queueMs) / 1000);
    if (usage.completionTokens === 0) return; // it was aborted before there was a first token
    const decodeSeconds = (totalMs - ttftMs) / 1000;
    prefill.observe((ttftMs - queueMs) / 1000);
    decode.observe(decodeSeconds);
    if (usage.completionTokens > 1) perToken.observe(decodeSeconds / (usage.completionTokens - 1));
  };
}
