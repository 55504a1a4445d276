import { afterEach, describe, expect, it } from 'vitest';
import type { EngineStats } from '../../src/engine/engine-stats.js';
import { Metrics } from '../../src/server/metrics.js';
import { engineStats, outcome, requestStart } from './requests.js';

let metrics: Metrics;
afterEach(() => metrics.close());

function made(stats: () => EngineStats | null = () => engineStats): Metrics {
  metrics = new Metrics({ modelName: 'tiny', stats });
  return metrics;
}

/** Values by series, such as `vllm:num_requests_running{model_name="tiny"}`. */
async function series(): Promise<Map<string, number>> {
  const { text } = await metrics.scrape();
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

const labelled = (name: string) => `vllm:${name}{model_name="tiny"}`;
const histogram = (all: Map<string, number>, name: string) => ({
  count: all.get(labelled(`${name}_count`)),
  sum: all.get(labelled(`${name}_sum`)),
});

describe('metrics', () => {
  it("show the engine's state under vLLM's names", async () => {
    made();
    const all = await series();
    const values = {
      num_requests_running: 3,
      num_requests_waiting: 2,
      kv_cache_usage_perc: 0.25,
      prefix_cache_queries_total: 100,
      prefix_cache_hits_total: 60,
      generation_tokens_total: 80,
      num_preemptions_total: 1,
      iteration_tokens_total_sum: 300,
      iteration_tokens_total_count: 20,
    };
    for (const [name, value] of Object.entries(values)) expect(all.get(labelled(name)), name).toBe(value);
  });

  it('read the engine anew each time, and are zero before it is there', async () => {
    let stats: EngineStats | null = null;
    made(() => stats);
    expect((await series()).get(labelled('generation_tokens_total'))).toBe(0);
    stats = engineStats;
    expect((await series()).get(labelled('generation_tokens_total'))).toBe(80);
    stats = { ...engineStats, generatedTokens: 90, running: 0 };
    const all = await series();
    expect(all.get(labelled('generation_tokens_total'))).toBe(90);
    expect(all.get(labelled('num_requests_running'))).toBe(0);
  });

  it("take the answers' times, in seconds", async () => {
    made();
    const observation = metrics.begin(requestStart());
    observation.end({ status: 200, promptTokens: 10, outcomes: [outcome(), outcome({ finishReason: 'length' })] });
    const all = await series();
    expect(histogram(all, 'e2e_request_latency_seconds')).toEqual({ count: 2, sum: 0.18 });
    expect(histogram(all, 'request_queue_time_seconds')).toEqual({ count: 2, sum: 0.01 });
    expect(histogram(all, 'request_prefill_time_seconds')).toEqual({ count: 2, sum: 0.05 });
    expect(histogram(all, 'request_decode_time_seconds')).toEqual({ count: 2, sum: 0.12 });
    expect(histogram(all, 'request_inference_time_seconds').sum).toBeCloseTo(0.17);
    expect(histogram(all, 'request_time_per_output_token_seconds').sum).toBeCloseTo(0.04);
    expect(histogram(all, 'request_prompt_tokens')).toEqual({ count: 2, sum: 20 });
    expect(histogram(all, 'request_generation_tokens')).toEqual({ count: 2, sum: 8 });
    expect(all.get(labelled('prompt_tokens_total'))).toBe(10);
    const finished = (reason: string) =>
      all.get(`vllm:request_success_total{finished_reason="${reason}",model_name="tiny"}`);
    expect([finished('stop'), finished('length'), finished('abort')]).toEqual([1, 1, 0]);
  });

  it('take what requests ask for, and the longest of their answers', async () => {
    made();
    const longer = outcome({ usage: { promptTokens: 10, completionTokens: 9, cachedTokens: 0 } });
    const asked = requestStart({ parameters: { n: 2, max_tokens: 30 } });
    metrics.begin(asked).end({ status: 200, promptTokens: 10, outcomes: [outcome(), longer] });
    metrics.begin(requestStart()).end({ status: 200, promptTokens: 10, outcomes: [outcome()] });
    metrics.begin(requestStart({ operation: 'embeddings' })).end({ status: 200, promptTokens: 10, outcomes: [] });
    const all = await series();
    expect(histogram(all, 'request_params_n')).toEqual({ count: 2, sum: 3 });
    expect(histogram(all, 'request_params_max_tokens')).toEqual({ count: 1, sum: 30 });
    expect(histogram(all, 'request_max_num_generation_tokens')).toEqual({ count: 2, sum: 13 });
  });

  it('count a first token once per answer, and every token after it', async () => {
    made();
    const observation = metrics.begin(requestStart());
    observation.tokens(0, 1);
    observation.tokens(1, 3);
    observation.tokens(0, 1);
    observation.tokens(0, 4);
    const all = await series();
    expect(histogram(all, 'time_to_first_token_seconds').count).toBe(2);
    expect(histogram(all, 'inter_token_latency_seconds').count).toBe(2 + 1 + 4);
  });

  it('have no first token of an answer that was aborted before it', async () => {
    made();
    const usage = { promptTokens: 10, completionTokens: 0, cachedTokens: 0 };
    const aborted = outcome({ finishReason: 'abort', usage });
    metrics.begin(requestStart()).end({ status: 499, promptTokens: 10, outcomes: [aborted] });
    const all = await series();
    expect(histogram(all, 'request_prefill_time_seconds').count).toBe(0);
    expect(histogram(all, 'e2e_request_latency_seconds').count).toBe(1);
    expect(all.get('engine:requests_total{operation="chat",status="499",model_name="tiny"}')).toBe(1);
  });

  it('count a request as aborted when the client left before any answer was over', async () => {
    made();
    metrics.begin(requestStart()).end({ status: 499, promptTokens: 0, outcomes: [] });
    for (const operation of ['embeddings', 'tokenize'] as const) {
      metrics.begin(requestStart({ operation })).end({ status: 499, promptTokens: 0, outcomes: [] }); // of no answer
    }
    const all = await series();
    expect(all.get('vllm:request_success_total{finished_reason="abort",model_name="tiny"}')).toBe(1);
  });

  it('have the steps by their tokens, as a histogram', async () => {
    let stats: EngineStats | null = null;
    made(() => stats);
    const bounds = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, '+Inf'];
    const buckets = async () => {
      const all = await series();
      return bounds.map((le) => all.get(`vllm:iteration_tokens_total_bucket{le="${le}",model_name="tiny"}`));
    };
    expect(await buckets()).toEqual(bounds.map(() => 0));
    stats = { ...engineStats, stepsByTokens: [1, 9, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1] };
    expect(await buckets()).toEqual([1, 10, 14, 18, 19, 19, 19, 19, 19, 19, 19, 19, 19, 20]);
    expect(histogram(await series(), 'iteration_tokens_total')).toEqual({ count: 20, sum: 300 });
    const { text } = await metrics.scrape();
    expect(text).toContain('# TYPE vllm:iteration_tokens_total histogram\n');
    expect(text.match(/^# TYPE .*$/gm)!.length).toBe(new Set(text.match(/^# TYPE \S+/gm)).size);
  });

  it('name models that have quotes in their names', async () => {
    metrics = new Metrics({ modelName: 'a "b" \\ c', stats: () => engineStats });
    const counts = [...(await series())].filter(([name]) => name.includes('{model_name="a \\"b\\" \\\\ c"}'));
    const names = counts.map(([name]) => name.slice(0, name.indexOf('{')));
    expect(names).toEqual(expect.arrayContaining(['vllm:iteration_tokens_total_sum', 'vllm:num_requests_running']));
  });

  it("have vLLM's bounds among theirs, so that queries by bound work", async () => {
    made();
    const all = await series();
    const has = (name: string, bound: number) => all.has(`vllm:${name}_bucket{le="${bound}",model_name="tiny"}`);
    for (const bound of [0.001, 0.06, 0.5, 10, 2560]) expect(has('time_to_first_token_seconds', bound)).toBe(true);
    for (const bound of [0.01, 0.075, 0.4, 80]) expect(has('inter_token_latency_seconds', bound)).toBe(true);
    for (const bound of [0.3, 1.5, 60, 7680]) expect(has('e2e_request_latency_seconds', bound)).toBe(true);
    for (const bound of [1, 20, 500, 1_000_000]) expect(has('request_prompt_tokens', bound)).toBe(true);
  });

  it('show how late the event loop was', async () => {
    made();
    await new Promise((resolve) => setTimeout(resolve, 30));
    const until = performance.now() + 100;
    while (performance.now() < until); // nothing else runs meanwhile
    await new Promise((resolve) => setTimeout(resolve, 30));
    const all = await series();
    expect(all.get('engine:event_loop_delay_seconds{quantile="1"}')).toBeGreaterThan(0.08);
    expect(all.get('process_resident_memory_bytes')).toBeGreaterThan(1e6);
  });
});
