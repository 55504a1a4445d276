import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EngineError, type ErrorCode } from '../base/errors.js';
import { abiNumber, type NativeFile } from './encode-plan.js';

/** All that the addon offers (native/addon.cc). */
export interface NativeAddon {
  /** The `abiNumber` it was generated for. */
  readonly abi: number;
  /** The best instruction set of this machine that is not above `limit`; null if `limit` is no known name. */
  isa(limit?: string): string | null;
  readonly Session: new () => NativeHandle;
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
    ...samplingAndResults: [...NativeSampling, NativeResults]
  ): Promise<NativeFailure | undefined>;
  sample(
    logits: Float32Array,
    positions: Int32Array,
    ...samplingAndResults: [...NativeSampling, NativeResults]
  ): NativeFailure | undefined;
  read(buffer: number): Promise<NativeFailure | Float32Array>;
  dispose(): Promise<NativeFailure | undefined>;
}

export interface NativeLoadRequest {
  readonly words: Int32Array;
  readonly names: readonly string[];
  readonly files: readonly NativeFile[];
  readonly isa: string;
  readonly threads: number;
  readonly oversubscribed: boolean;
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
}

/** An error of the table in base/errors.ts. */
export interface NativeFailure {
  readonly code: ErrorCode;
  readonly parameters: Readonly<Record<string, string | number>>;
}

/** A binary that could not be used, and why. */
export interface LoadFailure {
  /** Relative to the package. */
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

const require = createRequire(import.meta.url);

/** Tries every place a binary may lie in, and returns the first that works. Throws BACKEND_UNAVAILABLE. */
export function loadNativeAddon(): LoadedAddon {
  const root = packageRoot();
  const { loaded, failures } = tryAddons(root);
  if (loaded) return loaded;
  const tried = failures.map(({ path, reason }) => `${path}: ${reason}`).join('; ');
  const script = join(root, 'scripts/install.mjs');
  throw new EngineError('BACKEND_UNAVAILABLE', {
    backend: 'native-cpu',
    reason: `no addon could be loaded (${tried}); install CMake and a C++20 compiler, then run node ${script}`,
  });
}

/** The same, without throwing: the first binary that works, and all that do not. */
export function tryAddons(root = packageRoot()): { loaded: LoadedAddon | null; failures: LoadFailure[] } {
  const failures: LoadFailure[] = [];
  for (const path of candidates(root)) {
    try {
      return { loaded: { addon: open(path), path, failures }, failures };
    } catch (error) {
      failures.push({ path: relative(root, path), reason: reasonOf(error) });
    }
  }
  return { loaded: null, failures };
}

/** Places in the order of preference: shipped with the package, built here, built here for debugging. */
function candidates(root: string): string[] {
  const { platform, arch } = process;
  const prebuilds = join(root, 'prebuilds');
  const libc = platform === 'linux' && existsSync(prebuilds) && isMusl() ? '-musl' : '';
  return [
    join(prebuilds, `${platform}-${arch}${libc}`, 'engine.node'),
    join(root, 'build/Release/engine.node'),
    join(root, 'build/Debug/engine.node'),
  ];
}

function open(path: string): NativeAddon {
  if (!existsSync(path)) throw new Error('does not exist');
  const addon = require(path) as NativeAddon;
  if (addon.abi !== abiNumber) throw new Error(`was built for another version (ABI ${addon.abi}, not ${abiNumber})`);
  return addon;
}

/** The folder of package.json: two above this file in src/ and dist/, and found by name from a bundle. */
function packageRoot(): string {
  const beside = fileURLToPath(new URL('../..', import.meta.url));
  if (existsSync(join(beside, 'scripts/install.mjs'))) return beside;
  try {
    return join(require.resolve('engine-ts/package.json'), '..');
  } catch {
    return beside;
  }
}

/** Binaries for glibc do not work with musl (Alpine). Node reports a glibc version only where there is one. */
function isMusl(): boolean {
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined;
}

function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
}
