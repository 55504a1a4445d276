import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

/** Milliseconds between samples: one is what an event that arrives at a random moment would have waited. */
const RESOLUTION_MS = 10;
/** Milliseconds. Quantiles are of the last one or two of these. */
const WINDOW_MS = 30_000;

/** How late the event loop has been in the last minute. Two monitors take turns to start afresh. */
export class EventLoopDelay {
  #older = started();
  #newer = started();
  readonly #turn = setInterval(() => {
    this.#older.disable();
    this.#older = this.#newer;
    this.#newer = started();
  }, WINDOW_MS).unref();

  /** Seconds, for a quantile from 0 to 1; 0 before anything was measured. */
  seconds(quantile: number): number {
    if (this.#older.count === 0) return 0;
    // Node records the time between two samples, which is the resolution when nothing is late.
    const nanoseconds = quantile === 1 ? this.#older.max : this.#older.percentile(quantile * 100);
    return Math.max(0, nanoseconds / 1e9 - RESOLUTION_MS / 1000);
  }

  stop(): void {
    clearInterval(this.#turn);
    this.#older.disable();
    this.#newer.disable();
  }
}

function started(): IntervalHistogram {
  const monitor = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  monitor.enable();
  return monitor;
}
