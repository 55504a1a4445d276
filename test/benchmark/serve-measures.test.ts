import { describe, expect, test } from 'vitest';
import { meets, summarizeLatency, timePerToken } from '../../src/benchmark/serve/latency.js';
import { difference, histogramPercentile, parseMetrics } from '../../src/benchmark/serve/prometheus.js';
import type { RequestRecord } from '../../src/benchmark/serve/request-record.js';
import { residentBytes, summarizeMemory } from '../../src/benchmark/serve/resident-memory.js';
import { readServerSide } from '../../src/benchmark/serve/server-side.js';
import { EventSplitter } from '../../src/benchmark/serve/sse.js';

describe('server-sent events', () => {
  const stream = 'data: one\n\n: comment\nevent: x\ndata:two\r\n\r\n\n\ndata: a\ndata: b\n\ndata: unfinished\n';

  test('come out whole however the stream is cut', () => {
    for (let size = 1; size <= stream.length; size++) {
      const splitter = new EventSplitter();
      const events: string[] = [];
      for (let i = 0; i < stream.length; i += size) events.push(...splitter.push(stream.slice(i, i + size)));
      expect(events, `pieces of ${size}`).toEqual(['one', 'two', 'a\nb']);
    }
  });

  test('without an end do not fill the memory', () => {
    const splitter = new EventSplitter();
    expect(() => splitter.push('x'.repeat(2 ** 24 + 1))).toThrow(RangeError);
  });
});

describe('times', () => {
  const record = (more: Partial<RequestRecord>): RequestRecord => ({
    startMs: 0,
    ttftMs: 100,
    gapsMs: [10, 20, 60],
    e2eMs: 190,
    promptTokens: 1,
    outputTokens: 4,
    error: null,
    ...more,
  });

  test('have interpolated percentiles', () => {
    const hundred = Array.from({ length: 101 }, (_, i) => 100 - i);
    const expected = { mean: 50, p50: 50, p95: 95, p99: 99, max: 100, count: 101 };
    expect(summarizeLatency(hundred)).toEqual(expected);
    expect(summarizeLatency([])).toBeNull();
  });

  test('per token are those after the first', () => {
    expect(timePerToken(record({}))).toBe(30);
    expect(timePerToken(record({ outputTokens: 1, gapsMs: [] }))).toBeNull();
    expect(timePerToken(record({ ttftMs: null }))).toBeNull();
  });

  test('meet objectives or do not', () => {
    expect(meets(record({}), { ttftMs: 100, itlMs: 60 })).toBe(true);
    expect(meets(record({}), { ttftMs: 99, itlMs: null })).toBe(false);
    expect(meets(record({}), { ttftMs: null, itlMs: 50 })).toBe(false);
    expect(meets(record({ error: 'HTTP 503' }), { ttftMs: null, itlMs: null })).toBe(false);
    expect(meets(record({ ttftMs: null }), { ttftMs: 100, itlMs: null })).toBe(false);
  });
});

describe('metrics of a server', () => {
  const page = (counts: readonly number[], more = '') => `# HELP h Times.
# TYPE h histogram
${['0.1', '0.2', '0.4', '+Inf'].map((le, i) => `h_bucket{le="${le}",model_name="a"} ${counts[i]}`).join('\n')}
h_sum 3.5e-1
${more}`;

  test('are read with labels added up, and buckets by their bound', () => {
    const samples = parseMetrics(page([1, 2, 3, 4], 'x_total{a="1"} 2\nx_total{a="2"} 3 1700000000\nno metric here\n'));
    expect(samples.get('x_total')).toBe(5);
    expect(samples.get('h_bucket 0.2')).toBe(2);
    expect(samples.get('h_bucket Infinity')).toBe(4);
    expect(samples.get('h_sum')).toBe(0.35);
    expect(samples.size).toBe(6);
  });

  test('have percentiles of what came between two pages', () => {
    const added = difference(parseMetrics(page([5, 5, 5, 5])), parseMetrics(page([5, 15, 25, 25])));
    expect(histogramPercentile(added, 'h', 50)).toBeCloseTo(0.2, 9);
    expect(histogramPercentile(added, 'h', 25)).toBeCloseTo(0.15, 9);
    expect(histogramPercentile(added, 'h', 75)).toBeCloseTo(0.3, 9);
    expect(histogramPercentile(added, 'nothing', 50)).toBeNull();
    const beyond = difference(parseMetrics(page([0, 0, 0, 0])), parseMetrics(page([0, 0, 1, 10])));
    expect(histogramPercentile(beyond, 'h', 99)).toBe(0.4);
  });

  test('of llama.cpp and of Node.js are understood too', () => {
    const before = parseMetrics('llamacpp:prompt_tokens_total 100\nllamacpp:prompt_tokens_cached_total 50');
    const after = parseMetrics(`llamacpp:prompt_tokens_total 140
llamacpp:prompt_tokens_cached_total 110
nodejs_eventloop_lag_p50_seconds 0.0101
nodejs_eventloop_lag_p99_seconds 0.013
nodejs_eventloop_lag_max_seconds 0.009`);
    const { prefix_hit_rate, event_loop_delay_ms } = readServerSide([{ before, after }]);
    expect(prefix_hit_rate).toBeCloseTo(0.6, 9);
    expect(event_loop_delay_ms!.p50).toBeCloseTo(0.1, 9);
    expect(event_loop_delay_ms!.p99).toBeCloseTo(3, 9);
    expect(event_loop_delay_ms!.max).toBe(0);
    expect(readServerSide([])).toEqual({});
  });
});

describe('resident memory', () => {
  test('has a slope after the warm-up, over a run that is long enough', () => {
    const samples = Array.from({ length: 601 }, (_, i) => [i, 1e8 + 1000 * i] as const);
    const { samples: kept, ...memory } = summarizeMemory(5e7, samples)!;
    expect(memory).toEqual({ start: 5e7, after_warmup: 1e8, end: 1.006e8, peak: 1.006e8, slope_per_minute: 60_000 });
    expect(kept.length).toBeLessThanOrEqual(120);
    expect(kept[0]).toEqual([0, 1e8]);
    expect(summarizeMemory(5e7, samples.slice(0, 20))).not.toHaveProperty('slope_per_minute');
    expect(summarizeMemory(5e7, [])).toBeNull();
  });

  test('of a process is known while it lives', () => {
    expect(residentBytes(process.pid)).toBeGreaterThan(1e7);
    expect(residentBytes(2 ** 22 + 1)).toBeNull();
  });
});
