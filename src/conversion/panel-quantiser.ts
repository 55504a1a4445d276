import { loadNativeAddon, type NativeAddon } from '../backend/native-loader.js';
import { engineError } from '../backend/native-session.js';
import { EngineError } from '../base/errors.js';
import type { ModelFiles } from '../formats/model-file.js';
import { readTensorBytes } from '../formats/tensor-bytes.js';
import { quantisePanel } from '../quantization/quantise-panel.js';
import { dequantiseRows, dtypes, partOffset } from '../tensor/dtype.js';
import { PANEL_ROWS, panelBytes } from '../tensor/packed.js';
import type { QuantisedTensor } from './tensor-plan.js';

/** Sums over weights, for the relative error √(squaredError / squaredSum). */
export interface ErrorSums {
  squaredError: number;
  squaredSum: number;
}

export interface PanelRange {
  readonly first: number;
  readonly count: number;
}

/** Quantises panels of a matrix that lies in a file: their bytes, and their errors added to `sums`. */
export interface PanelQuantiser {
  readonly name: 'native' | 'reference';
  quantise(matrix: QuantisedTensor, panels: PanelRange, sums: ErrorSums, signal?: AbortSignal): Promise<Uint8Array>;
}

/** The addon's where it can be loaded, on this many threads; else TypeScript's, which gives the same bytes. */
export function panelQuantiser(files: ModelFiles['files'], threads: number): PanelQuantiser {
  try {
    return new NativePanels(loadNativeAddon().addon, files, threads);
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'BACKEND_UNAVAILABLE') throw error;
    return new ReferencePanels(files);
  }
}

class NativePanels implements PanelQuantiser {
  readonly name = 'native';
  readonly #isa: string;

  constructor(
    private readonly addon: NativeAddon,
    private readonly files: ModelFiles['files'],
    private readonly threads: number,
  ) {
    this.#isa = addon.isa(process.env.ENGINE_CPU_ISA || undefined) ?? addon.isa()!;
  }

  async quantise(
    { source, dtype, rows, columns, transposedStride }: QuantisedTensor,
    { first, count }: PanelRange,
    total: ErrorSums,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const out = new Uint8Array(count * panelBytes(dtype, columns));
    const sums = new Float64Array(2);
    const stamp = this.files.get(source.file)!;
    const { done, cancel } = this.addon.quantizeMatrix(
      {
        isa: this.#isa,
        file: { path: source.file, ...stamp },
        name: source.name,
        offset: source.offset,
        dtype: dtypes[source.dtype].id,
        rows,
        columns,
        transposedStride,
        target: dtypes[dtype].id,
        firstPanel: first,
        numPanels: count,
        threads: this.threads,
      },
      { out, sums },
    );
    signal?.addEventListener('abort', cancel, { once: true });
    const failure = await done;
    signal?.removeEventListener('abort', cancel);
    if (failure) throw engineError(failure);
    total.squaredError += sums[0]!;
    total.squaredSum += sums[1]!;
    return out;
  }
}

export class ReferencePanels implements PanelQuantiser {
  readonly name = 'reference';
  /** A transposed matrix, as it is stored: its rows lie in all parts of it. */
  #whole: { readonly name: string; readonly bytes: Uint8Array } | null = null;

  constructor(private readonly files: ModelFiles['files']) {}

  async quantise(matrix: QuantisedTensor, panels: PanelRange, total: ErrorSums): Promise<Uint8Array> {
    await new Promise((resolve) => setImmediate(resolve)); // a panel takes long enough to look for an abort between them
    const { source, dtype, rows, columns } = matrix;
    const bytesPerPanel = panelBytes(dtype, columns);
    const out = new Uint8Array(panels.count * bytesPerPanel);
    const decoded = new Float32Array(PANEL_ROWS * columns);
    for (let panel = 0; panel < panels.count; panel++) {
      const first = (panels.first + panel) * PANEL_ROWS;
      const values = this.#readRows(matrix, first, Math.min(PANEL_ROWS, rows - first));
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) {
        const place = { row: first + Math.floor(bad / columns), column: bad % columns };
        throw new EngineError('WEIGHT_NOT_FINITE', { tensor: source.name, ...place, value: String(values[bad]) });
      }
      quantisePanel(dtype, values, columns, out, panel * bytesPerPanel);
      dequantiseRows(dtype, out.subarray(panel * bytesPerPanel), columns, 0, PANEL_ROWS, decoded);
      values.forEach((value, i) => {
        total.squaredError += (value - decoded[i]!) ** 2;
        total.squaredSum += value ** 2;
      });
    }
    return out;
  }

  /** [16, columns]; rows past the last are zeros. */
  #readRows({ source, columns, transposedStride }: QuantisedTensor, first: number, count: number): Float32Array {
    const values = new Float32Array(PANEL_ROWS * columns);
    const { dtype } = source;
    if (transposedStride === 0) {
      const offset = partOffset(dtype, first, columns)!;
      const part = { ...source, offset: source.offset + offset, byteLength: partOffset(dtype, count, columns)! };
      dequantiseRows(dtype, readTensorBytes(part, this.files), columns, 0, count, values);
      return values;
    }
    if (this.#whole?.name !== source.name) {
      this.#whole = { name: source.name, bytes: readTensorBytes(source, this.files) };
    }
    const column = new Float32Array(1);
    for (let c = 0; c < columns; c++) {
      for (let r = 0; r < count; r++) {
        dequantiseRows(dtype, this.#whole.bytes, 1, c * transposedStride + first + r, 1, column);
        values[r * columns + c] = column[0]!;
      }
    }
    return values;
  }
}
