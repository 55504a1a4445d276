import { EngineError } from '../base/errors.js';
import type { Backend } from './backend.js';
import { nativeLoad } from './native-load.js';
import { type LoadFailure, loadNativeAddon, type NativeAddon, tryAddons } from './native-loader.js';
import { type ThreadCount, threadCount } from './thread-count.js';

export interface NativeCpuOptions {
  /**
   * Threads of a session, the one that leads them included: 1 … 256. Default: see `threadCount`; steps too small to be
   * worth several then use one.
   */
  readonly threads?: number | undefined;
  /** Highest instruction set to use: scalar, avx2, avx512, neon, i8mm. The variable ENGINE_CPU_ISA may lower it further. */
  readonly isa?: string | undefined;
  /** Work that is worth a thread of its own, in nanoseconds. Default 2000; tests of shares want fine ones. */
  readonly chunkTime?: number | undefined;
}

const MAX_THREADS = 256;

/** Nanoseconds: handing out a chunk costs some 50, and moves memory between cores. */
const CHUNK_TIME = 2000;

/** Instruction sets with kernels, lowest first; a machine has a part of them. */
const isaNames = ['scalar', 'avx2', 'avx512', 'neon', 'i8mm'] as const;

/**
 * The C++ backend: the plan on SIMD kernels, in threads of its own. Throws BACKEND_UNAVAILABLE if the addon cannot be
 * loaded, OPTION_INVALID.
 */
export function nativeCpuBackend(options: NativeCpuOptions = {}): Backend {
  const { addon } = loadNativeAddon();
  const isa = chooseIsa(addon, options.isa);
  const available = threadCount();
  const threads = options.threads ?? available.threads;
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    const expected = `a whole number from 1 to ${MAX_THREADS}`;
    throw new EngineError('OPTION_INVALID', { option: 'threads', value: options.threads, expected });
  }
  const adaptive = options.threads === undefined;
  const chunkTime = options.chunkTime ?? CHUNK_TIME;
  const oversubscribed = threads > Math.min(available.processors, available.quota ?? Infinity);
  const load = nativeLoad(addon, { isa, threads, oversubscribed, adaptive, chunkTime }, () => 1);
  return { name: `native-cpu:${isa}`, load };
}

/** What `engine doctor` shows about this backend. */
export interface NativeInfo {
  /** Absolute path of the addon in use, or null if there is none. */
  readonly binary: string | null;
  /** Binaries that could not be used. */
  readonly failures: readonly LoadFailure[];
  /** Instruction sets this machine can run, lowest first. */
  readonly isas: readonly string[];
  /** The one in use, or null without an addon. */
  readonly isa: string | null;
  readonly threads: ThreadCount;
}

/** Throws OPTION_INVALID for an unknown ENGINE_CPU_ISA. */
export function nativeInfo(): NativeInfo {
  const { loaded, failures } = tryAddons();
  return {
    binary: loaded?.path ?? null,
    failures,
    isas: loaded ? availableIsas(loaded.addon) : [],
    isa: loaded ? chooseIsa(loaded.addon) : null,
    threads: threadCount(),
  };
}

function availableIsas(addon: NativeAddon): string[] {
  return isaNames.filter((name) => addon.isa(name) === name);
}

/** The lower of what the option and the environment allow. */
export function chooseIsa(addon: NativeAddon, option?: string): string {
  const order = availableIsas(addon);
  const limits = { isa: option, ENGINE_CPU_ISA: process.env.ENGINE_CPU_ISA || undefined };
  const levels = [addon.isa()!];
  for (const [name, limit] of Object.entries(limits)) {
    if (limit === undefined) continue;
    const level = addon.isa(limit);
    if (level === null) {
      throw new EngineError('OPTION_INVALID', { option: name, value: limit, expected: isaNames.join(', ') });
    }
    levels.push(level);
  }
  return order[Math.min(...levels.map((level) => order.indexOf(level)))]!;
}
