import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isAbsolute, join, relative, resolve } from 'node:path';
import { EngineError, type ErrorCode } from '../base/errors.js';
import { besideBundle, packageRoot } from '../base/package-files.js';
import { abiNumber, type NativeFile } from './encode-plan.js';
import { usesMusl } from './musl.js';

/** All that the addon offers (native/addon.cc). */
export interface NativeAddon {
  /** The `abiNumber` it was generated for. */
  readonly abi: number;
  /** The best instruction set of this machine that is not above `limit`; null if `limit` is no known name. */
  isa(limit?: string): string | null;
  readonly Session: new () => NativeHandle;
  /** GPUs that a library with kernels finds, or why there are none. */
  cudaDevices(library: string): NativeFailure | NativeCudaDevice[];
  /** Bytes read and written per second by copies in a GPU's memory; blocks for some milliseconds. */
  cudaCopyRate(library: string, device: number): NativeFailure | number;
  /** What a step of a plan would launch, one line each. */
  cudaLaunches(
    request: NativeCudaRequest,
    words: Int32Array,
    numFiles: number,
    tokens: number,
    rows: number,
    contextLength: number,
  ): NativeFailure | string;
  quantizeMatrix(request: NativeQuantizeRequest, arrays: NativeQuantizeArrays): NativeTask;
  /** gram [columns, columns] += Xᵀ X for x [rows, columns], on and above the diagonal. */
  addGram(
    request: { readonly isa: string; readonly columns: number; readonly threads: number },
    arrays: { readonly x: Float32Array; readonly gram: Float64Array },
  ): NativeTask;
  /** Weights [columns] and feedback [columns, columns] of an ErrorModel (native/gptq.h); overwrites gram. */
  makeErrorModel(
    request: { readonly columns: number; readonly damping: number; readonly threads: number },
    arrays: { readonly gram: Float64Array; readonly weights: Float32Array; readonly feedback: Float32Array },
  ): NativeTask;
  /**
   * Times a kernel: nanoseconds [runs at most] of each run; measured [3]: runs, bytes and operations of one
   * (native/measure.h).
   */
  measure(
    request: NativeMeasureRequest,
    arrays: { readonly nanoseconds: Float64Array; readonly measured: Float64Array },
  ): NativeTask;
}

/** What the sizes mean is in native/measured_kernel.h; dtype is the id of a storage type. */
export interface NativeMeasureRequest {
  readonly what: string;
  readonly isa: string;
  readonly dtype: number;
  readonly rows: number;
  readonly columns: number;
  readonly tokens: number;
  readonly threads: number;
  readonly oversubscribed: boolean;
  /** Bytes that make data cold. */
  readonly coldBytes: number;
  /** Nanoseconds. */
  readonly budget: number;
}

/** Work without a session, on threads of its own. */
export interface NativeTask {
  /** Resolves to undefined, or to the reason why not. */
  readonly done: Promise<NativeFailure | undefined>;
  /** Ends it soon, with ABORTED. */
  cancel(): void;
}

/** Panels firstPanel … firstPanel + numPanels − 1 of a matrix in a file; dtype and target are ids of storage types. */
export interface NativeQuantizeRequest {
  readonly isa: string;
  readonly file: NativeFile;
  /** Of the tensor, for messages. */
  readonly name: string;
  readonly offset: number;
  readonly dtype: number;
  readonly rows: number;
  readonly columns: number;
  readonly transposedStride: number;
  readonly target: number;
  readonly firstPanel: number;
  readonly numPanels: number;
  readonly threads: number;
}

export interface NativeQuantizeArrays {
  /** [bytes of the panels] */
  readonly out: Uint8Array;
  /** [2] sums of squared errors and of squared weights */
  readonly sums: Float64Array;
  /** [columns] how much errors count, 0 … 1. Without: 1. */
  readonly importance?: Float32Array;
  /** [columns, columns] GPTQ's error feedback, see src/quantization/quantise-panel.ts. */
  readonly feedback?: Float32Array;
}

/** A session in native code. Promises resolve to undefined, or to the reason why not. */
export interface NativeHandle {
  load(request: NativeLoadRequest): Promise<NativeFailure | undefined>;
  step(
    tokenIds: Int32Array,
    positions: Int32Array,
    slotMapping: Int32Array,
    queryStart: Int32Array,
    contextLens: Int32Array,
    blockTables: Int32Array,
    ...samplingResultsAndSteps: [...NativeSampling, NativeResults, number]
  ): Promise<NativeFailure | undefined>;
  sample(
    logits: Float32Array,
    positions: Int32Array,
    ...samplingAndResults: [...NativeSampling, NativeResults]
  ): NativeFailure | undefined;
  read(buffer: number): Promise<NativeFailure | Float32Array>;
  copyBlocks(pairs: Int32Array): Promise<NativeFailure | undefined>;
  saveBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<NativeFailure | undefined>;
  loadBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<NativeFailure | undefined>;
  dispose(): Promise<NativeFailure | undefined>;
}

export interface NativeLoadRequest {
  readonly words: Int32Array;
  readonly names: readonly string[];
  readonly files: readonly NativeFile[];
  readonly isa: string;
  readonly threads: number;
  readonly oversubscribed: boolean;
  readonly adaptive: boolean;
  readonly chunkTime: number;
  /** To run on a GPU; the settings above are then about loading. */
  readonly cuda?: NativeCudaRequest;
}

/** See CudaRequest in native/executor.h. */
export interface NativeCudaRequest {
  readonly library: string;
  readonly device: number;
  readonly parts: number;
  readonly graphs: boolean;
  readonly fused: boolean;
  readonly overlaps: boolean;
}

export interface NativeCudaDevice {
  readonly name: string;
  /** `9.0` */
  readonly computeCapability: string;
  /** Whether kernels run on it. */
  readonly usable: boolean;
  readonly multiprocessors: number;
  /** Bytes, of one block of threads. */
  readonly sharedMemory: number;
  /** Bytes. */
  readonly memory: number;
  readonly freeMemory: number;
  /** By the clock of its memory and the width of its bus; 0 if unknown. */
  readonly memoryBytesPerSecond: number;
  /** The newest CUDA that the driver knows, and the one of the library: `13.0`. */
  readonly driver: string;
  readonly runtime: string;
}

/** Records, history, bias and mask of SamplingInputs, laid flat. */
export type NativeSampling = [
  sampling: Int32Array,
  historyOffsets: Int32Array | undefined,
  historyIds: Int32Array | undefined,
  biasOffsets: Int32Array | undefined,
  biasIds: Int32Array | undefined,
  biasValues: Float32Array | undefined,
  mask: Int32Array | undefined,
];

/** Arrays that native code fills in; the lengths follow from the records. */
export interface NativeResults {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  readonly topIds: Int32Array;
  readonly topLogprobs: Float32Array;
  readonly logits?: Float32Array;
  readonly hidden?: Float32Array;
}

/** An error of the table in base/errors.ts. */
export interface NativeFailure {
  readonly code: ErrorCode;
  readonly parameters: Readonly<Record<string, string | number>>;
}

/** A binary that could not be used, and why. */
export interface LoadFailure {
  /** Relative to the package, or absolute outside of it. */
  readonly path: string;
  readonly reason: string;
}

export interface LoadedAddon {
  readonly addon: NativeAddon;
  /** Absolute path of the binary. */
  readonly path: string;
  /** Binaries tried before it. */
  readonly failures: readonly LoadFailure[];
}

/** Tries every place a binary may lie in, and returns the first that works. Throws BACKEND_UNAVAILABLE. */
export function loadNativeAddon(): LoadedAddon {
  const { loaded, failures } = tryAddons();
  if (loaded) return loaded;
  const tried = failures.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  throw new EngineError('BACKEND_UNAVAILABLE', {
    backend: 'native-cpu',
    reason: `no addon could be loaded (${tried}); ${remedy()}`,
  });
}

/** The same, without throwing: the first binary that works, and all that do not. `root`: the folder of the package. */
export function tryAddons(root = packageRoot()): { loaded: LoadedAddon | null; failures: LoadFailure[] } {
  const failures: LoadFailure[] = [];
  for (const path of candidates(root)) {
    try {
      return { loaded: { addon: open(path), path, failures }, failures };
    } catch (error) {
      failures.push({ path: insidePackage(path, root), reason: reasonOf(error) });
    }
  }
  return { loaded: null, failures };
}

/**
 * Places in the order of preference: the one the user names; beside a bundle; shipped with the package; built here. A
 * build newer than the shipped binary was made on purpose and goes before it.
 */
function candidates(root: string | null): string[] {
  const named = process.env.ENGINE_ADDON_PATH;
  if (named) return [resolve(named)];
  const beside = besideBundle('engine.node');
  if (root === null) return beside;
  const shipped = join(root, 'prebuilds', prebuildTarget(), 'engine.node');
  const built = join(root, 'build/Release/engine.node');
  const debug = join(root, 'build/Debug/engine.node');
  return [...beside, ...(modified(built) > modified(shipped) ? [built, shipped] : [shipped, built]), debug];
}

/** The folder of prebuilds/ for this machine: `linux-x64`, `linux-x64-musl`, `darwin-arm64`. */
export function prebuildTarget(): string {
  const { platform, arch } = process;
  return `${platform}-${arch}${platform === 'linux' && usesMusl() ? '-musl' : ''}`;
}

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function open(path: string): NativeAddon {
  if (!existsSync(path)) throw new Error('does not exist');
  const addon = createRequire(path)(path) as NativeAddon;
  if (addon.abi !== abiNumber) throw new Error(`was built for another version (ABI ${addon.abi}, not ${abiNumber})`);
  return addon;
}

function insidePackage(path: string, root: string | null): string {
  const fromRoot = root === null ? path : relative(root, path);
  return isAbsolute(fromRoot) || fromRoot.startsWith('..') ? path : fromRoot;
}

function remedy(): string {
  const root = packageRoot();
  return process.env.ENGINE_ADDON_PATH || root === null
    ? 'put the addon of this version beside the bundle as engine.node, or its path into ENGINE_ADDON_PATH'
    : `install CMake and a C++20 compiler, then run node ${join(root, 'scripts/install.mjs')}`;
}

function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
}
