import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Bytes of a process' memory that are resident, over a run. */
export interface ResidentMemory {
  /** When the server answered for the first time. */
  readonly start: number;
  readonly after_warmup: number;
  readonly end: number;
  readonly peak: number;
  /** Least squares over what came after the warm-up, in bytes a minute; absent for a run shorter than 30 s. */
  readonly slope_per_minute?: number;
  /** Seconds since the warm-up, and bytes; evenly chosen if there are many. */
  readonly samples: readonly (readonly [seconds: number, bytes: number])[];
}

/** Resident bytes of a process now; null if it is gone or nobody can say. */
export function residentBytes(pid: number): number | null {
  try {
    if (process.platform === 'linux') {
      const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
      return kib === undefined ? null : 1024 * Number(kib);
    }
    const kib = execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { stdio: ['ignore', 'pipe', 'ignore'] });
    return 1024 * Number(kib.toString());
  } catch {
    return null;
  }
}

const INTERVAL_MS = 1000;
/** Samples in a report. */
const MOST_SAMPLES = 120;
/** Seconds below which a slope says nothing. */
const LEAST_SECONDS = 30;

/** Looks at a process every second, from its warm-up on, until it is stopped. */
export class MemoryMonitor {
  readonly #samples: [seconds: number, bytes: number][] = [];
  readonly #startMs = performance.now();
  readonly #timer: NodeJS.Timeout;

  constructor(
    readonly pid: number,
    readonly startBytes: number,
  ) {
    this.#sample();
    this.#timer = setInterval(() => this.#sample(), INTERVAL_MS);
  }

  /** Null if there was nothing to see. */
  stop(): ResidentMemory | null {
    clearInterval(this.#timer);
    this.#sample();
    return summarizeMemory(this.startBytes, this.#samples);
  }

  #sample(): void {
    const bytes = residentBytes(this.pid);
    if (bytes !== null) this.#samples.push([(performance.now() - this.#startMs) / 1000, bytes]);
  }
}

export function summarizeMemory(
  start: number,
  samples: readonly (readonly [seconds: number, bytes: number])[],
): ResidentMemory | null {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined) return null;
  const slope = last[0] - first[0] < LEAST_SECONDS ? null : 60 * slopeOf(samples);
  const every = Math.ceil(samples.length / MOST_SAMPLES);
  return {
    start,
    after_warmup: first[1],
    end: last[1],
    peak: samples.reduce((most, [, bytes]) => Math.max(most, bytes), start),
    ...(slope !== null && { slope_per_minute: Math.round(slope) }),
    samples: samples.filter((_, i) => i % every === 0).map(([seconds, bytes]) => [Math.round(seconds), bytes]),
  };
}

/** Of the line with the least squares, per unit of the first coordinate. */
function slopeOf(points: readonly (readonly [number, number])[]): number {
  const mean = (axis: 0 | 1) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  let products = 0;
  let squares = 0;
  for (const [x, y] of points) {
    products += (x - meanX) * (y - meanY);
    squares += (x - meanX) ** 2;
  }
  return squares === 0 ? 0 : products / squares;
}
