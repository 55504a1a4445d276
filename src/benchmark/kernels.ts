import type { KvDType } from '../backend/kv-dtype.js';
import { nativeInfo } from '../backend/native.js';
import {
  ATTENTION_WIDTH,
  type Measured,
  type MeasuredKernel,
  type MeasureRequest,
  measureCaps,
  measureNatively,
} from '../backend/native-measure.js';
import { EngineError } from '../base/errors.js';
import { type DType, dtypes, rowMultiple } from '../tensor/dtype.js';
import { describeCommit, describeMachine } from './machine.js';
import { type ComputeKind, coldBytes, computeKindOf, type Peak, Peaks } from './peaks.js';
import type { BenchReport, BenchRow } from './report.js';
import { type Summary, summarize } from './statistics.js';

export interface KernelShape {
  readonly rows: number;
  readonly columns: number;
}

export interface KernelOptions {
  /** One row of the report for each number. Default 1 and as many as this process may use. */
  readonly threads?: readonly number[] | undefined;
  /** Of matrices. Default a projection of TinyLlama, and its head for one token. */
  readonly shapes?: readonly KernelShape[] | undefined;
  /** Rows of activations. Default 1, 8, 512. */
  readonly tokens?: readonly number[] | undefined;
  /** Storage types of matrices; if they are named, nothing but linear layers is measured. */
  readonly types?: readonly DType[] | undefined;
  /** Runs of each kernel at most; they end after half a second. Default 30. */
  readonly runs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((what: string) => void) | undefined;
}

export interface KernelRow extends BenchRow {
  /** Rows × columns of the matrix, positions × width, or tokens × width. */
  readonly shape: string;
  /** Of one run. */
  readonly microseconds: Summary;
}

export interface KernelReport extends Omit<BenchReport, 'model' | 'rows'> {
  readonly model: null;
  readonly peaks: readonly Peak[];
  readonly rows: readonly KernelRow[];
}

/** A kernel with the sizes it is measured with. */
interface KernelCase extends Required<Pick<MeasureRequest, 'what' | 'dtype' | 'rows' | 'columns' | 'tokens'>> {
  readonly compute: ComputeKind | null;
  /** Whether it reads what is in no cache. */
  readonly cold: boolean;
}

const usualTypes = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q4_0',
  'q4_k',
  'q5_k',
  'q6_k',
  'int8',
  'int4',
  'int4_sym',
] as const satisfies readonly DType[];
const PROJECTION: KernelShape = { rows: 2048, columns: 5632 };
const HEAD: KernelShape = { rows: 32_000, columns: 2048 };
const usualTokens = [1, 8, 512];
const usualPositions = [512, 8192];
const usualKvTypes: readonly KvDType[] = ['f16', 'int8'];
const RUNS = 30;
const SECONDS = 0.5;

/**
 * Times kernels one by one, and between them the peaks they are compared with. Throws OPTION_INVALID,
 * BACKEND_UNAVAILABLE, OUT_OF_MEMORY, ABORTED.
 */
export async function benchmarkKernels(command: string, options: KernelOptions): Promise<KernelReport> {
  const { signal, onProgress, runs = RUNS } = options;
  const cases = casesOf(options);
  const available = nativeInfo().threads.threads;
  const threadCounts = options.threads ?? [...new Set([1, available])];
  for (const threads of threadCounts) requireWhole('--threads', threads, measureCaps.threads);
  requireWhole('--runs', runs, measureCaps.repetitions);
  const cold = coldBytes();
  const peaks = new Peaks(signal);
  const results: { readonly kernel: KernelCase; readonly threads: number; readonly measured: Measured }[] = [];
  const samplePeaks = async (compute: ComputeKind | null) => {
    for (const threads of threadCounts) await peaks.sample(threads, compute);
  };
  for (const [i, kernel] of cases.entries()) {
    const { what, dtype, rows, columns, tokens, compute } = kernel;
    const isOfGroup = (other: KernelCase | undefined) => other?.what === what && other.dtype === dtype;
    if (!isOfGroup(cases[i - 1])) await samplePeaks(compute);
    for (const threads of threadCounts) {
      onProgress?.(`${what} ${dtype} ${shapeOf(kernel)}, ${tokens} tokens, ${threads} threads`);
      const request = { what, dtype, rows, columns, tokens, threads, repetitions: runs, seconds: SECONDS, signal };
      const measured = await measureNatively({ ...request, coldBytes: kernel.cold ? cold : 0 });
      results.push({ kernel, threads, measured });
    }
    if (!isOfGroup(cases[i + 1])) await samplePeaks(compute);
  }
  const backend = `native-cpu:${nativeInfo().isa}`;
  return {
    machine: describeMachine(),
    commit: describeCommit(),
    command,
    model: null,
    peaks: peaks.all(),
    rows: results.map(({ kernel, threads, measured }) => makeRow(kernel, threads, measured, backend, peaks)),
  };
}

function makeRow(kernel: KernelCase, threads: number, measured: Measured, backend: string, peaks: Peaks): KernelRow {
  const { what, dtype, tokens, rows, compute, cold } = kernel;
  const times = [...measured.nanoseconds];
  const time = summarize(times).median;
  const gb = measured.bytes / time;
  const gop = measured.operations / time;
  const read = cold ? peaks.gbPerSecond(threads) : null;
  const multiply = compute === null ? null : peaks.gopPerSecond(threads, compute);
  return {
    name: what,
    backend,
    dtype,
    shape: shapeOf(kernel),
    threads,
    batch: tokens,
    prompt_tokens: what === 'attention' ? rows : 0,
    generated_tokens: 0,
    microseconds: summarize(times.map((nanoseconds) => nanoseconds / 1e3)),
    tokens_per_second: summarize(times.map((nanoseconds) => (tokens / nanoseconds) * 1e9)),
    gb_per_second: gb,
    ...(read && { peak_gb_per_second: read.median, percent_of_peak: (100 * gb) / read.median }),
    ...(gop > 0 && { gop_per_second: gop }),
    ...(multiply && { peak_gop_per_second: multiply.median, percent_of_peak_compute: (100 * gop) / multiply.median }),
  };
}

/** Throws OPTION_INVALID. */
function casesOf({ shapes, tokens = usualTokens, types }: KernelOptions): KernelCase[] {
  for (const count of tokens) requireWhole('--tokens', count, measureCaps.tokens);
  for (const { rows, columns } of shapes ?? []) {
    requireWhole('rows of --shape', rows, measureCaps.rows);
    requireWhole('columns of --shape', columns, measureCaps.columns);
  }
  const linears = (types ?? usualTypes).flatMap((dtype) => {
    const sizes = (shapes ?? [PROJECTION]).flatMap((shape) => tokens.map((count) => ({ ...shape, tokens: count })));
    if (shapes === undefined && tokens.includes(1)) sizes.push({ ...HEAD, tokens: 1 });
    return sizes
      .filter(({ columns }) => types !== undefined || columns % rowMultiple(dtype) === 0)
      .map((size): KernelCase => {
        requireFit(dtype, size.columns);
        return { what: 'linear', dtype, ...size, compute: computeKindOf(dtype), cold: true };
      });
  });
  return types === undefined ? [...linears, ...otherCases(shapes ?? [PROJECTION], Math.max(...tokens))] : linears;
}

/** What a layer does besides its matrices. */
function otherCases(shapes: readonly KernelShape[], tokens: number): KernelCase[] {
  const attention = usualKvTypes.flatMap((dtype) =>
    usualPositions.map(
      (rows): KernelCase => ({
        what: 'attention',
        dtype,
        rows,
        columns: ATTENTION_WIDTH,
        tokens: 1,
        compute: 'multiply_add',
        cold: true,
      }),
    ),
  );
  const perRow = (what: MeasuredKernel, columns: number): KernelCase => {
    return { what, dtype: 'f32', rows: 1, columns, tokens, compute: null, cold: false };
  };
  const { rows, columns } = shapes[0]!;
  return [...attention, perRow('rms_norm', Math.min(rows, measureCaps.columns)), perRow('silu_mul', columns)];
}

function requireFit(dtype: DType, columns: number): void {
  if (!Object.hasOwn(dtypes, dtype)) {
    const expected = `some of ${Object.keys(dtypes).join(', ')}`;
    throw new EngineError('OPTION_INVALID', { option: '--types', value: dtype, expected });
  }
  const multiple = rowMultiple(dtype);
  if (columns % multiple === 0) return;
  const expected = `a multiple of ${multiple} for ${dtype}`;
  throw new EngineError('OPTION_INVALID', { option: 'columns of --shape', value: columns, expected });
}

function requireWhole(option: string, value: number, max: number): void {
  if (Number.isInteger(value) && value >= 1 && value <= max) return;
  throw new EngineError('OPTION_INVALID', { option, value, expected: `a whole number from 1 to ${max}` });
}

function shapeOf({ what, rows, columns, tokens }: KernelCase): string {
  return what === 'linear' || what === 'attention' ? `${rows}x${columns}` : `${tokens}x${columns}`;
}
