import type { Backend } from '../backend/backend.js';
import { nativeCpuBackend } from '../backend/native.js';
import { cudaInfo, nativeCudaBackend } from '../backend/native-cuda.js';
import type { Activations } from '../backend/op.js';
import { referenceBackend } from '../backend/reference-session.js';
import { EngineError } from '../base/errors.js';
import { type LoadOptions, oneOf } from './load-options.js';

export interface ChosenBackend {
  readonly backend: Backend;
  /** With `auto`: why a faster backend is not used; null if there is none. */
  readonly fallbackReason: string | null;
  readonly activations: Activations;
}

/** The backend of these options. Throws OPTION_INVALID, and BACKEND_UNAVAILABLE for one that was asked for by name. */
export function chooseBackend(options: Pick<LoadOptions, 'backend' | 'threads' | 'activations'>): ChosenBackend {
  const { threads } = options;
  const wanted = oneOf('backend', options.backend ?? 'auto', ['auto', 'native-cuda', 'native-cpu', 'reference']);
  const activations = oneOf('activations', options.activations ?? 'auto', ['auto', 'f32', 'q8']);
  const exact = activations === 'auto' ? 'f32' : activations;
  const reference = (reason: string | null = null): ChosenBackend => {
    return { backend: referenceBackend(), fallbackReason: reason, activations: exact };
  };
  const cpu = (reason: string | null = null): ChosenBackend => {
    const backend = nativeCpuBackend({ threads });
    return { backend, fallbackReason: reason, activations: activations === 'auto' ? 'q8' : activations };
  };
  // Its linear layers have no 8-bit activations; `f32` asks for the exact form of its own.
  const cuda = (): ChosenBackend => {
    // To measure what they are worth.
    const graphs = process.env.ENGINE_CUDA_GRAPHS !== 'off';
    const fused = process.env.ENGINE_CUDA_FUSION !== 'off';
    const overlaps = process.env.ENGINE_CUDA_OVERLAP !== 'off';
    const backend = nativeCudaBackend({ threads, precise: activations === 'f32', graphs, fused, overlaps });
    return { backend, fallbackReason: null, activations: 'f32' };
  };
  if (wanted === 'reference') return reference();
  if (wanted === 'native-cpu') return cpu();
  if (wanted === 'native-cuda') return cuda();
  try {
    const { problem, isPresent } = cudaInfo();
    if (problem === null) return cuda();
    return cpu(isPresent ? `no GPU is used: ${problem}` : null);
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'BACKEND_UNAVAILABLE') throw error;
    return reference(`${error.message}; using the reference backend, which is slow`);
  }
}
