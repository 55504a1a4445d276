import { type IntervalHistogram, monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Metrics } from '../../src/server/metrics.js';
import { ProcessMetrics } from '../../src/server/process-metrics.js';

afterEach(() => vi.restoreAllMocks());

/** Observers and monitors that have been started and not stopped. */
function watched(): ReadonlySet<object> {
  const active = new Set<object>();
  const watch = (prototype: object, start: string, stop: string) => {
    const methods = prototype as Record<string, (this: object, ...values: unknown[]) => unknown>;
    const [begin, end] = [methods[start]!, methods[stop]!];
    vi.spyOn(methods, start).mockImplementation(function (this: object, ...values) {
      active.add(this);
      return begin.apply(this, values);
    });
    vi.spyOn(methods, stop).mockImplementation(function (this: object, ...values) {
      active.delete(this);
      return end.apply(this, values);
    });
  };
  watch(PerformanceObserver.prototype, 'observe', 'disconnect');
  watch(Object.getPrototypeOf(monitorEventLoopDelay()) as IntervalHistogram, 'enable', 'disable');
  return active;
}

describe('metrics of the process', () => {
  it('are stopped with nothing left behind', async () => {
    const active = watched();
    const clearIntervals = vi.spyOn(globalThis, 'clearInterval');
    const setIntervals = vi.spyOn(globalThis, 'setInterval');
    const metrics = new Metrics({ modelName: 'tiny', stats: () => null });
    await metrics.scrape();
    expect(active.size).toBe(4); // garbage collections, the event loop since the last scrape, and in two windows
    metrics.close();
    expect(active.size).toBe(0);
    expect(clearIntervals.mock.calls.length).toBe(setIntervals.mock.calls.length);
  });

  it("have the names of prom-client's, less what it calls deprecated or only Linux has", () => {
    const [ours, theirs] = [new Registry(), new Registry()];
    const metrics = new ProcessMetrics(ours);
    collectDefaultMetrics({ register: theirs });
    // Their values are not asked for: counting active handles can end a process of Node 20.
    const namesOf = (registry: Registry) =>
      registry
        .getMetricsAsArray()
        .map(({ name, type }) => `${name} ${type}`)
        .sort();
    const absent = /^nodejs_active_(handles|requests)|^process_(virtual_memory|heap)_bytes/;
    expect(namesOf(theirs).length).toBeGreaterThan(20);
    expect(namesOf(ours)).toEqual(namesOf(theirs).filter((name) => !absent.test(name)));
    metrics.close();
  });

  it('are of this process', async () => {
    const registry = new Registry();
    const metrics = new ProcessMetrics(registry);
    setFlagsFromString('--expose-gc');
    (runInNewContext('gc') as () => void)();
    await new Promise((resolve) => setTimeout(resolve, 40));
    const value = async (series: string) => {
      const line = (await registry.metrics()).split('\n').find((line) => line.startsWith(`${series} `));
      return Number(line!.slice(series.length));
    };
    expect(await value('nodejs_gc_duration_seconds_count{kind="major"}')).toBeGreaterThan(0);
    expect(await value('process_cpu_seconds_total')).toBeGreaterThan(0.01);
    expect(Math.abs((await value('process_start_time_seconds')) + process.uptime() - Date.now() / 1000)).toBeLessThan(
      1,
    );
    expect(await value('nodejs_heap_size_used_bytes')).toBeGreaterThan(1e6);
    expect(await value('nodejs_heap_space_size_used_bytes{space="old"}')).toBeGreaterThan(1e5);
    const late = performance.now() + 250;
    await new Promise((resolve) => setTimeout(resolve, 20));
    while (performance.now() < late); // nothing else runs meanwhile
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await value('nodejs_eventloop_lag_max_seconds')).toBeGreaterThan(0.15);
    expect(await value('nodejs_eventloop_lag_max_seconds')).toBeLessThan(0.15); // of what came since
    metrics.close();
  });
});
