import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { EngineError } from '../base/errors.js';
import type { Backend, SessionLimits, WeightTable } from './backend.js';
import { numTokenIds } from './check-batch.js';
import { encodePlan } from './encode-plan.js';
import { chooseIsa } from './native.js';
import { nativeLoad } from './native-load.js';
import { loadNativeAddon, type NativeAddon, type NativeCudaDevice, tryAddons } from './native-loader.js';
import { engineError } from './native-session.js';
import type { Plan } from './plan.js';
import { threadCount } from './thread-count.js';

export interface NativeCudaOptions {
  /** Index of the GPU. Default 0. */
  readonly device?: number | undefined;
  /** The library with the kernels. Default: what ENGINE_CUDA_LIBRARY names, else the one beside the addon. */
  readonly library?: string | undefined;
  /**
   * Activations that linear layers read keep 22 bits instead of 11, which costs up to half of the speed of large steps.
   * Default false.
   */
  readonly precise?: boolean | undefined;
  /** Steps that come again are replayed as one CUDA graph. Default true; without, every kernel is launched by itself. */
  readonly graphs?: boolean | undefined;
  /**
   * Several ops are one launch where they can be, with the same results. What only goes from one of them to another is
   * then not written: `Session.read` of such a buffer gives what was there before. Default true.
   */
  readonly fused?: boolean | undefined;
  /** A kernel may begin while the one before it ends, where the GPU can do that. Default true. */
  readonly overlaps?: boolean | undefined;
  /** CPU threads that pack weights while a model is loaded. Default: see `threadCount`. */
  readonly threads?: number | undefined;
}

/** As in native/batch.h. */
const MAX_STEPS = 8;

/** What is sampled in one step is looked up in the next. */
const maxSteps = (plan: Plan): number => (plan.logits.width <= numTokenIds(plan) ? MAX_STEPS : 1);

/** The library's name, beside the addon. */
const LIBRARY_NAME = process.platform === 'win32' ? 'engine_cuda.dll' : 'engine_cuda.so';

/**
 * The CUDA backend: the plan as kernels on a GPU, weights, keys and values in its memory. Throws BACKEND_UNAVAILABLE
 * where there is no addon, library, driver or usable GPU.
 */
export function nativeCudaBackend(options: NativeCudaOptions = {}): Backend {
  const { addon, path } = loadNativeAddon();
  const { request, devices } = openLibrary(addon, path, options);
  const device = devices[request.device];
  if (device === undefined) throw unavailable(`there is no GPU ${request.device}; there are ${devices.length}`);
  if (!device.usable) throw unavailable(tooOld(device));
  const threads = options.threads ?? threadCount().threads;
  const settings = { threads, oversubscribed: false, adaptive: false, chunkTime: 0, cuda: request };
  const load = nativeLoad(addon, { isa: chooseIsa(addon), ...settings }, maxSteps);
  return { name: `native-cuda:sm_${device.computeCapability.replace('.', '')}`, load };
}

/** What `engine doctor` shows about this backend. */
export interface CudaInfo {
  /** Absolute path of the library with the kernels; null if there is none. */
  readonly library: string | null;
  readonly devices: readonly NativeCudaDevice[];
  /** Why no GPU can be used; null if one can. */
  readonly problem: string | null;
  /** Whether there seems to be one all the same, so that users should know. */
  readonly isPresent: boolean;
}

export function cudaInfo(): CudaInfo {
  const none = { library: null, devices: [], isPresent: false };
  const { loaded } = tryAddons();
  if (loaded === null) return { ...none, problem: 'the addon cannot be loaded' };
  const library = libraryPath(loaded.path);
  if (!existsSync(library)) return { ...none, problem: notBuilt(library) };
  const devices = loaded.addon.cudaDevices(library);
  if (!Array.isArray(devices)) {
    return { ...none, library, problem: String(devices.parameters.reason), isPresent: hasHardware() };
  }
  return { library, devices, problem: devices[0]!.usable ? null : tooOld(devices[0]!), isPresent: true };
}

/** Whether a device of NVIDIA's is plugged in, as far as the operating system tells without a driver. */
function hasHardware(): boolean {
  const folder = '/sys/bus/pci/devices';
  try {
    return readdirSync(folder).some((name) => readFileSync(join(folder, name, 'vendor'), 'latin1').trim() === '0x10de');
  } catch {
    return false;
  }
}

/** What kernels do on a GPU, and why. */
export function kernelChoice({ computeCapability }: NativeCudaDevice): string {
  return Number(computeCapability) >= 9
    ? 'weights by bulk copies (compute capability 9.0 and later), products on matrix units'
    : 'weights by asynchronous copies (bulk copies need compute capability 9.0), products on matrix units';
}

/** What a GPU's memory gives, in bytes per second. */
export interface CudaBandwidth {
  /** Read and written by copies of memory that is in no cache. */
  readonly measured: number;
  /** By the clock of its memory and the width of its bus; null if the driver does not say. */
  readonly datasheet: number | null;
}

/** Blocks for some milliseconds. Throws BACKEND_UNAVAILABLE, DEVICE_FAILED, OUT_OF_MEMORY. */
export function cudaBandwidth(options: NativeCudaOptions = {}): CudaBandwidth {
  const { addon, path } = loadNativeAddon();
  const { request, devices } = openLibrary(addon, path, options);
  const measured = addon.cudaCopyRate(request.library, request.device);
  if (typeof measured !== 'number') throw engineError(measured);
  return { measured, datasheet: devices[request.device]!.memoryBytesPerSecond || null };
}

/** The kernels of a step with so many tokens, rows and positions, one launch per line. Throws BACKEND_UNAVAILABLE. */
export function describeLaunches(
  plan: Plan,
  weights: WeightTable,
  limits: SessionLimits,
  step: { readonly tokens: number; readonly rows: number; readonly contextLength: number },
  options: NativeCudaOptions = {},
): string {
  const { addon, path } = loadNativeAddon();
  const { request } = openLibrary(addon, path, options);
  const { words, files } = encodePlan(plan, weights, limits);
  const text = addon.cudaLaunches(request, words, files.length, step.tokens, step.rows, step.contextLength);
  if (typeof text !== 'string') throw engineError(text);
  return text;
}

function openLibrary(addon: NativeAddon, addonPath: string, options: NativeCudaOptions) {
  const { device = 0, precise = false, graphs = true, fused = true, overlaps = true } = options;
  if (!Number.isInteger(device) || device < 0) {
    throw new EngineError('OPTION_INVALID', { option: 'device', value: device, expected: 'the index of a GPU' });
  }
  const library = options.library ?? libraryPath(addonPath);
  if (!existsSync(library)) throw unavailable(notBuilt(library));
  const devices = addon.cudaDevices(library);
  if (!Array.isArray(devices)) throw engineError(devices);
  return { request: { library, device, parts: precise ? 2 : 1, graphs, fused, overlaps }, devices };
}

function libraryPath(addonPath: string): string {
  return process.env.ENGINE_CUDA_LIBRARY
    ? resolve(process.env.ENGINE_CUDA_LIBRARY)
    : join(dirname(addonPath), LIBRARY_NAME);
}

function notBuilt(library: string): string {
  return `there is no ${library}; install the CUDA toolkit (12 or later) and build the addon again`;
}

function tooOld({ name, computeCapability }: NativeCudaDevice): string {
  return `${name} has compute capability ${computeCapability}; kernels need 8.0 or later`;
}

function unavailable(reason: string): EngineError {
  return new EngineError('BACKEND_UNAVAILABLE', { backend: 'native-cuda', reason });
}
