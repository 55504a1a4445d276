import type { Backend } from '../backend/backend.js';
import { nativeCpuBackend } from '../backend/native.js';
import type { Activations } from '../backend/op.js';
import { referenceBackend } from '../backend/reference-session.js';
import { EngineError } from '../base/errors.js';
import { type BackendName, type LoadOptions, oneOf } from './load-options.js';

export interface ChosenBackend {
  readonly backend: Backend;
  /** With `auto`: why the native backend is not used; null if it is. */
  readonly fallbackReason: string | null;
  readonly activations: Activations;
}

/** The backend of these options. Throws OPTION_INVALID, and BACKEND_UNAVAILABLE for one that was asked for by name. */
export function chooseBackend(options: Pick<LoadOptions, 'backend' | 'threads' | 'activations'>): ChosenBackend {
  const wanted = oneOf('backend', options.backend ?? 'auto', ['auto', 'native-cpu', 'reference']);
  const activations = oneOf('activations', options.activations ?? 'auto', ['auto', 'f32', 'q8']);
  const chosen = (name: BackendName, backend: Backend, fallbackReason: string | null = null): ChosenBackend => ({
    backend,
    fallbackReason,
    activations: activations === 'auto' ? (name === 'native-cpu' ? 'q8' : 'f32') : activations,
  });
  if (wanted === 'reference') return chosen('reference', referenceBackend());
  try {
    return chosen('native-cpu', nativeCpuBackend({ threads: options.threads }));
  } catch (error) {
    if (wanted !== 'auto' || !(error instanceof EngineError) || error.code !== 'BACKEND_UNAVAILABLE') throw error;
    return chosen('reference', referenceBackend(), `${error.message}; using the reference backend, which is slow`);
  }
}
