import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { type CudaBandwidth, cudaBandwidth } from '../backend/native-cuda.js';
import { type MeasuredKernel, type MeasureRequest, measureNatively } from '../backend/native-measure.js';
import type { DType } from '../tensor/dtype.js';
import type { BenchRow } from './report.js';
import { median, type Summary, summarize } from './statistics.js';

/** What products of a storage type are compared with: multiply-adds of floats, or of codes of so many bits. */
export type ComputeKind = 'multiply_add' | 'dot4' | 'dot5' | 'dot6' | 'dot8';

/** What a machine was measured to do at most. */
export interface Peak {
  readonly threads: number;
  readonly what: 'read' | ComputeKind;
  readonly gb_per_second?: Summary;
  readonly gop_per_second?: Summary;
}

const MIB = 2 ** 20;
/** Bytes that one run reads: long enough for its threads to be started, short enough not to be interrupted. */
const READ_SHAPE = { rows: 4096, columns: 4096 };
/** Some ten thousand cycles. */
const STEPS: Readonly<Record<ComputeKind, number>> = {
  multiply_add: 20_000,
  dot4: 500,
  dot5: 500,
  dot6: 500,
  dot8: 500,
};
const RUNS = { repetitions: 20, seconds: 0.2 };
/** Of a machine that does not say. */
const USUAL_CACHE = 32 * MIB;
const MAX_COLD_BYTES = 1024 * MIB;

/**
 * Peaks of this machine: measured again and again between other measurements, because a machine that others use does not
 * stay the same. What counts is the median.
 */
export class Peaks {
  readonly #samples = new Map<string, number[]>();

  constructor(private readonly signal?: AbortSignal | undefined) {}

  /** Measures once more. Throws BACKEND_UNAVAILABLE, OUT_OF_MEMORY, ABORTED. */
  async sample(threads: number, compute: ComputeKind | null): Promise<void> {
    const read = { what: 'read', ...READ_SHAPE, coldBytes: coldBytes() } as const;
    await this.#measure('read', threads, read, ({ bytes }) => bytes);
    if (compute === null) return;
    const multiply = { what: compute, rows: STEPS[compute] * threads, columns: 1 };
    await this.#measure(compute, threads, multiply, ({ operations }) => operations);
  }

  /** Null if it was not measured. */
  gbPerSecond(threads: number): Summary | null {
    return this.#summary('read', threads);
  }

  gopPerSecond(threads: number, compute: ComputeKind): Summary | null {
    return this.#summary(compute, threads);
  }

  all(): Peak[] {
    return [...this.#samples].map(([key, samples]) => {
      const [what, threads] = key.split(' ') as [Peak['what'], string];
      const rate = summarize(samples);
      const rates = what === 'read' ? { gb_per_second: rate } : { gop_per_second: rate };
      return { threads: Number(threads), what, ...rates };
    });
  }

  async #measure(
    what: MeasuredKernel,
    threads: number,
    request: Pick<MeasureRequest, 'what' | 'rows' | 'columns' | 'coldBytes'>,
    amount: (measured: { bytes: number; operations: number }) => number,
  ): Promise<void> {
    const measured = await measureNatively({ ...request, ...RUNS, threads, signal: this.signal });
    const key = `${what} ${threads}`;
    const samples = this.#samples.get(key) ?? [];
    samples.push(amount(measured) / median([...measured.nanoseconds]));
    this.#samples.set(key, samples);
  }

  #summary(what: string, threads: number): Summary | null {
    const samples = this.#samples.get(`${what} ${threads}`);
    return samples === undefined ? null : summarize(samples);
  }
}

/**
 * What the memory of the GPU gives that a backend of this name runs on; null for one that runs on none. Throws
 * BACKEND_UNAVAILABLE, DEVICE_FAILED, OUT_OF_MEMORY.
 */
export function gpuBandwidth(backend: string): CudaBandwidth | null {
  return backend.startsWith('native-cuda') ? cudaBandwidth() : null;
}

/** Per cent of a GPU's bandwidth, of a row that says what it read. */
export function besideBandwidth({ gb_per_second: gb }: BenchRow, bandwidth: CudaBandwidth | null): Partial<BenchRow> {
  if (gb === undefined || bandwidth === null) return {};
  const measured = bandwidth.measured / 1e9;
  const datasheet = bandwidth.datasheet === null ? null : bandwidth.datasheet / 1e9;
  return {
    peak_gb_per_second: measured,
    percent_of_peak: (100 * gb) / measured,
    ...(datasheet !== null && { datasheet_gb_per_second: datasheet, percent_of_datasheet: (100 * gb) / datasheet }),
  };
}

/** @param floatActivations whether inputs stay floats */
export function computeKindOf(dtype: DType, floatActivations = false): ComputeKind {
  if (floatActivations || ['f32', 'f16', 'bf16'].includes(dtype)) return 'multiply_add';
  if (/^(q4|int4)/.test(dtype)) return 'dot4';
  if (/^q5/.test(dtype)) return 'dot5';
  return /^q6/.test(dtype) ? 'dot6' : 'dot8';
}

/** So many bytes, read in turn, are in no cache when their turn comes. */
export function coldBytes(): number {
  const wanted = Math.min(4 * lastLevelCache(), MAX_COLD_BYTES);
  return Math.floor(Math.min(wanted, freemem() / 4));
}

/** Bytes of the largest cache of the first processor. */
function lastLevelCache(): number {
  const folder = '/sys/devices/system/cpu/cpu0/cache';
  if (!existsSync(folder)) return USUAL_CACHE;
  const sizes = readdirSync(folder).map((name) => {
    const path = join(folder, name, 'size');
    const [, kib] = /^(\d+)K/.exec(existsSync(path) ? readFileSync(path, 'utf8') : '') ?? [];
    return Number(kib ?? 0) * 1024;
  });
  return Math.max(...sizes) || USUAL_CACHE;
}
