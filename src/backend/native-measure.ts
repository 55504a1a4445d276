import { EngineError } from '../base/errors.js';
import { type DType, dtypes, rowMultiple } from '../tensor/dtype.js';
import { type KvDType, kvDtypes } from './kv-dtype.js';
import { chooseIsa } from './native.js';
import { loadNativeAddon } from './native-loader.js';
import { engineError } from './native-session.js';
import { threadCount } from './thread-count.js';

/** What sizes mean for each: native/measured_kernel.h. */
export const measuredKernels = [
  'read',
  'multiply_add',
  'dot4',
  'dot5',
  'dot6',
  'dot8',
  'linear',
  'attention',
  'rms_norm',
  'silu_mul',
] as const;
export type MeasuredKernel = (typeof measuredKernels)[number];

export interface MeasureRequest {
  readonly what: MeasuredKernel;
  /** Of the matrix, or of keys and values. Default f32. */
  readonly dtype?: DType | KvDType;
  readonly rows: number;
  readonly columns: number;
  /** Default 1. */
  readonly tokens?: number;
  readonly threads: number;
  /** Highest instruction set to use. */
  readonly isa?: string | undefined;
  /** Runs at most. */
  readonly repetitions: number;
  /** Runs end after so long, but not before the third. Default 1. */
  readonly seconds?: number;
  /** What is read lies in memory in copies of at least so many bytes together, and runs take turns. Default 0: one. */
  readonly coldBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Measured {
  /** Wall time of each run, its threads started together. */
  readonly nanoseconds: Float64Array;
  /** Of one run: those of the matrix, of keys and values, or of activations where there is neither. */
  readonly bytes: number;
  /** Multiplications and additions of one run; 0 where they do not matter. */
  readonly operations: number;
}

/** Width of all heads of the attention that is measured: kHeads · kHeadDim of native/measured_kernel.h. */
export const ATTENTION_WIDTH = 2048;

/** Largest values, those of native code. */
export const measureCaps = {
  rows: 2 ** 20,
  columns: 2 ** 17,
  tokens: 4096,
  threads: 256,
  repetitions: 10_000,
  coldBytes: 2 ** 32,
} as const;
/** Fewest bytes that are read: kReadUnit of kernels.h. */
const READ_UNIT = 512;
const MAX_SECONDS = 60;

/**
 * Times a kernel on random data, in native code and off the event loop. Throws OPTION_INVALID, BACKEND_UNAVAILABLE,
 * OUT_OF_MEMORY, ABORTED.
 */
export async function measureNatively(request: MeasureRequest): Promise<Measured> {
  const { what, rows, columns, threads, repetitions, signal } = request;
  const { tokens = 1, seconds = 1, coldBytes = 0 } = request;
  const sizes = { rows, columns, tokens, threads, repetitions };
  for (const [name, value] of Object.entries(sizes))
    requireWhole(name, value, 1, measureCaps[name as keyof typeof measureCaps]);
  requireWhole('coldBytes', coldBytes, 0, measureCaps.coldBytes);
  if (!(seconds >= 0 && seconds <= MAX_SECONDS)) refuse('seconds', seconds, `0 to ${MAX_SECONDS}`);
  const dtype = dtypeId(request);
  if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
  const { addon } = loadNativeAddon();
  const isa = chooseIsa(addon, request.isa);
  const available = threadCount();
  const oversubscribed = threads > Math.min(available.processors, available.quota ?? Infinity);
  const nanoseconds = new Float64Array(repetitions);
  const measured = new Float64Array(3);
  const task = addon.measure(
    { what, isa, dtype, rows, columns, tokens, threads, oversubscribed, coldBytes, budget: seconds * 1e9 },
    { nanoseconds, measured },
  );
  const onAbort = () => task.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  const failure = await task.done;
  signal?.removeEventListener('abort', onAbort);
  if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
  if (failure) throw engineError(failure);
  return { nanoseconds: nanoseconds.slice(0, measured[0]), bytes: measured[1]!, operations: measured[2]! };
}

/** The number of the type in native code, after a look at whether rows and columns suit it. */
function dtypeId({ what, dtype = 'f32', rows, columns }: MeasureRequest): number {
  if (what === 'attention') {
    const id = (kvDtypes as readonly string[]).indexOf(dtype);
    if (id < 0) refuse('dtype', dtype, `one of ${kvDtypes.join(', ')}`);
    if (columns !== ATTENTION_WIDTH) refuse('columns', columns, String(ATTENTION_WIDTH));
    return id;
  }
  if (what === 'linear') {
    if (!Object.hasOwn(dtypes, dtype)) refuse('dtype', dtype, `one of ${Object.keys(dtypes).join(', ')}`);
    const multiple = rowMultiple(dtype);
    if (columns % multiple !== 0) refuse('columns', columns, `a multiple of ${multiple} for ${dtype}`);
    return dtypes[dtype].id;
  }
  if (!measuredKernels.includes(what)) refuse('what', what, `one of ${measuredKernels.join(', ')}`);
  if (what === 'read' && rows * columns < READ_UNIT) refuse('rows', rows, `at least ${READ_UNIT} bytes to read`);
  return 0;
}

function requireWhole(option: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  refuse(option, value, `a whole number from ${min} to ${max}`);
}

function refuse(option: string, value: unknown, expected: string): never {
  throw new EngineError('OPTION_INVALID', { option, value, expected });
}
