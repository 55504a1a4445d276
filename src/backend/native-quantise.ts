import { EngineError, invariant } from '../base/errors.js';
import type { ErrorModel } from '../quantization/quantise-panel.js';
import { dtypes } from '../tensor/dtype.js';
import { PANEL_ROWS, type PackedDType, panelBytes } from '../tensor/packed.js';
import type { WeightSource } from './backend.js';
import { chooseIsa } from './native.js';
import { loadNativeAddon } from './native-loader.js';
import { engineError } from './native-session.js';
import { threadCount } from './thread-count.js';

export interface QuantiseRequest {
  /** Name of the tensor, for messages. */
  readonly name: string;
  readonly source: WeightSource;
  /** The source's file as it was when its header was read. */
  readonly stamp: { readonly size: number; readonly mtimeMs: number };
  readonly target: PackedDType;
  /** Panels of 16 rows; default all. */
  readonly firstPanel?: number;
  readonly numPanels?: number;
  /** What is known of errors from calibration. */
  readonly errors?: ErrorModel;
  readonly threads?: number;
  /** Highest instruction set to use. */
  readonly isa?: string;
  readonly signal?: AbortSignal;
}

export interface QuantisedPanels {
  readonly bytes: Uint8Array;
  /** Σ (weight − quantised weight)² */
  readonly squaredError: number;
  /** Σ weight² */
  readonly squaredSum: number;
}

/**
 * Quantises panels of a matrix that lies in a file in native code, off the event loop: the bytes of `quantisePanel`.
 *
 * Throws BACKEND_UNAVAILABLE, FILE_NOT_FOUND, FILE_UNREADABLE, FILE_CHANGED, FORMAT_INVALID, WEIGHT_NOT_FINITE,
 * OUT_OF_MEMORY, ABORTED.
 */
export async function quantisePanelsNatively(request: QuantiseRequest): Promise<QuantisedPanels> {
  const { name, source, target, errors, signal } = request;
  if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
  const { addon } = loadNativeAddon();
  const firstPanel = request.firstPanel ?? 0;
  const numPanels = request.numPanels ?? Math.ceil(source.rows / PANEL_ROWS) - firstPanel;
  invariant(numPanels > 0, `${numPanels} panels of ${name} were to be quantised`);
  const out = allocate(numPanels * panelBytes(target, source.columns), name);
  const sums = new Float64Array(2);
  const task = addon.quantizeMatrix(
    {
      isa: chooseIsa(addon, request.isa),
      file: { path: source.file, ...request.stamp },
      name,
      offset: source.offset,
      dtype: dtypes[source.dtype].id,
      rows: source.rows,
      columns: source.columns,
      transposedStride: source.transposedStride,
      target: dtypes[target].id,
      firstPanel,
      numPanels,
      threads: request.threads ?? threadCount().threads,
    },
    { out, sums, ...(errors && { importance: errors.weights, feedback: errors.feedback }) },
  );
  const onAbort = () => task.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  const failure = await task.done;
  signal?.removeEventListener('abort', onAbort);
  if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
  if (failure) throw engineError(failure);
  return { bytes: out, squaredError: sums[0]!, squaredSum: sums[1]! };
}

function allocate(bytes: number, name: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new EngineError('OUT_OF_MEMORY', { bytes, what: `the quantised tensor ${name}` }, { cause });
  }
}
