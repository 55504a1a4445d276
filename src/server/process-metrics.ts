import { readdirSync, readFileSync } from 'node:fs';
import {
  constants,
  type IntervalHistogram,
  monitorEventLoopDelay,
  type PerformanceEntry,
  PerformanceObserver,
} from 'node:perf_hooks';
import { getHeapSpaceStatistics } from 'node:v8';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Seconds. */
const COLLECTION_SECONDS = [0.001, 0.01, 0.1, 1, 2, 5];
/** Milliseconds between samples of the event loop's delay. */
const RESOLUTION_MS = 10;

const collectionKinds: Readonly<Record<number, string>> = {
  [constants.NODE_PERFORMANCE_GC_MAJOR]: 'major',
  [constants.NODE_PERFORMANCE_GC_MINOR]: 'minor',
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL]: 'incremental',
  [constants.NODE_PERFORMANCE_GC_WEAKCB]: 'weakcb',
};

/**
 * Processor time, memory, garbage collection and event loop of this process, under the names that dashboards for Node.js
 * know from prom-client's default metrics. Those cannot be stopped: their observers stay for as long as the process does.
 */
export class ProcessMetrics {
  readonly #lag = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #collections: PerformanceObserver;

  constructor(registry: Registry) {
    registerProcess(registry);
    registerMemory(registry);
    registerLag(registry, this.#lag);
    const durations = new Histogram({
      name: 'nodejs_gc_duration_seconds',
      help: 'Garbage collections by kind.',
      labelNames: ['kind'],
      buckets: COLLECTION_SECONDS,
      registers: [registry],
    });
    this.#collections = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { kind } = (entry as PerformanceEntry & { readonly detail: { readonly kind: number } }).detail;
        durations.observe({ kind: collectionKinds[kind] ?? 'other' }, entry.duration / 1000);
      }
    });
    this.#collections.observe({ entryTypes: ['gc'] });
    this.#lag.enable();
  }

  close(): void {
    this.#collections.disconnect();
    this.#lag.disable();
  }
}

/** A gauge that is read when somebody asks. */
function gauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(value());
    },
  });
}

/** The same by the values of one label. */
function gauges(registry: Registry, name: string, help: string, label: string, values: () => Map<string, number>) {
  new Gauge({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset();
      for (const [of, value] of values()) this.set({ [label]: of }, value);
    },
  });
}

function registerProcess(registry: Registry): void {
  const processorTime = (name: string, help: string, microseconds: (usage: NodeJS.CpuUsage) => number) =>
    new Counter({
      name: `process_cpu_${name}seconds_total`,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(microseconds(process.cpuUsage()) / 1e6);
      },
    });
  processorTime('user_', 'Processor time in this program.', ({ user }) => user);
  processorTime('system_', 'Processor time in the operating system.', ({ system }) => system);
  processorTime('', 'Processor time.', ({ user, system }) => user + system);

  const started = Date.now() / 1000 - process.uptime();
  gauge(registry, 'process_start_time_seconds', 'When the process began, since 1970.', () => started);
  if (process.platform === 'linux') {
    const [, limit] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
    // The listing is open itself while it is read.
    gauge(registry, 'process_open_fds', 'Open files.', () => readdirSync('/proc/self/fd').length - 1);
    if (limit !== undefined) gauge(registry, 'process_max_fds', 'Most open files.', () => Number(limit));
  }

  gauges(registry, 'nodejs_active_resources', 'What keeps the event loop alive.', 'type', activeResources);
  const count = () => process.getActiveResourcesInfo().length;
  gauge(registry, 'nodejs_active_resources_total', 'What keeps the event loop alive.', count);
  const [major, minor, patch] = process.versions.node.split('.').map((part) => String(Number.parseInt(part, 10)));
  const version = { version: process.version, major: major!, minor: minor!, patch: patch! };
  new Gauge({
    name: 'nodejs_version_info',
    help: 'Version of Node.js.',
    labelNames: Object.keys(version),
    registers: [registry],
  }).set(version, 1);
}

function activeResources(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1);
  return counts;
}

function registerMemory(registry: Registry): void {
  const usage = process.memoryUsage;
  gauge(registry, 'process_resident_memory_bytes', 'Memory in use.', () => usage.rss());
  gauge(registry, 'nodejs_heap_size_total_bytes', "JavaScript's heap.", () => usage().heapTotal);
  gauge(registry, 'nodejs_heap_size_used_bytes', "JavaScript's heap, in use.", () => usage().heapUsed);
  gauge(registry, 'nodejs_external_memory_bytes', 'Memory of buffers.', () => usage().external);
  const fields = { total: 'space_size', used: 'space_used_size', available: 'space_available_size' } as const;
  for (const [name, field] of Object.entries(fields)) {
    const bySpace = () =>
      new Map(getHeapSpaceStatistics().map((it) => [it.space_name.replace(/_space$/, ''), it[field]]));
    gauges(registry, `nodejs_heap_space_size_${name}_bytes`, `Spaces of the heap, ${name}.`, 'space', bySpace);
  }
}

/** The time between two samples of the event loop since the last scrape; it is the resolution where nothing is late. */
function registerLag(registry: Registry, lag: IntervalHistogram): void {
  const registers = [registry];
  const values = {
    min: () => lag.min,
    max: () => lag.max,
    mean: () => lag.mean,
    stddev: () => lag.stddev,
    p50: () => lag.percentile(50),
    p90: () => lag.percentile(90),
    p99: () => lag.percentile(99),
  };
  const summaries: (() => void)[] = [];
  new Gauge({
    name: 'nodejs_eventloop_lag_seconds',
    help: 'How late the event loop is now.',
    registers,
    async collect() {
      // The registry asks this one first, and then reads what the others have been set to.
      for (const summarise of summaries) summarise();
      lag.reset();
      const begun = performance.now();
      await new Promise(setImmediate);
      this.set((performance.now() - begun) / 1000);
    },
  });
  for (const [name, nanoseconds] of Object.entries(values)) {
    const help = `Time between two looks at the event loop since the last scrape: ${name}.`;
    const summary = new Gauge({ name: `nodejs_eventloop_lag_${name}_seconds`, help, registers });
    summaries.push(() => summary.set(lag.count === 0 ? 0 : nanoseconds() / 1e9));
  }
}
