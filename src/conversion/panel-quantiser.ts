import { tryAddons } from '../backend/native-loader.js';
import { quantisePanelsNatively } from '../backend/native-quantise.js';
import { EngineError } from '../base/errors.js';
import type { ModelFiles } from '../formats/model-file.js';
import { readTensorBytes } from '../formats/tensor-bytes.js';
import { type ErrorModel, quantisePanel } from '../quantization/quantise-panel.js';
import { dequantiseRows, partOffset } from '../tensor/dtype.js';
import { PANEL_ROWS, panelBytes } from '../tensor/packed.js';
import type { QuantisedTensor } from './tensor-plan.js';

/** Sums over weights, for the relative error √(squaredError / squaredSum). */
export interface ErrorSums {
  squaredError: number;
  squaredSum: number;
}

/** Which panels of which matrix to quantise. */
export interface PanelJob {
  readonly matrix: QuantisedTensor;
  readonly first: number;
  readonly count: number;
  /** What is known of errors from calibration. */
  readonly errors?: ErrorModel | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Quantises panels of a matrix that lies in a file: their bytes, and their errors added to `sums`. */
export interface PanelQuantiser {
  readonly name: 'native' | 'reference';
  quantise(job: PanelJob, sums: ErrorSums): Promise<Uint8Array>;
}

/** The addon's where it can be loaded, on this many threads; else TypeScript's, which gives the same bytes. */
export function panelQuantiser(files: ModelFiles['files'], threads: number): PanelQuantiser {
  return tryAddons().loaded === null ? new ReferencePanels(files) : new NativePanels(files, threads);
}

class NativePanels implements PanelQuantiser {
  readonly name = 'native';

  constructor(
    private readonly files: ModelFiles['files'],
    private readonly threads: number,
  ) {}

  async quantise({ matrix, first, count, errors, signal }: PanelJob, sums: ErrorSums): Promise<Uint8Array> {
    const { source, rows, columns, transposedStride } = matrix;
    const { bytes, squaredError, squaredSum } = await quantisePanelsNatively({
      name: source.name,
      source: { ...source, rows, columns, transposedStride },
      stamp: this.files.get(source.file)!,
      target: matrix.dtype,
      firstPanel: first,
      numPanels: count,
      threads: this.threads,
      ...(errors && { errors }),
      ...(signal && { signal }),
    });
    sums.squaredError += squaredError;
    sums.squaredSum += squaredSum;
    return bytes;
  }
}

export class ReferencePanels implements PanelQuantiser {
  readonly name = 'reference';
  /** A transposed matrix, as it is stored: its rows lie in all parts of it. */
  #whole: { readonly name: string; readonly bytes: Uint8Array } | null = null;

  constructor(private readonly files: ModelFiles['files']) {}

  async quantise({ matrix, first, count, errors }: PanelJob, sums: ErrorSums): Promise<Uint8Array> {
    await new Promise((resolve) => setImmediate(resolve)); // a panel takes long enough to look for an abort between them
    const { source, dtype, rows, columns } = matrix;
    const bytesPerPanel = panelBytes(dtype, columns);
    const out = new Uint8Array(count * bytesPerPanel);
    const decoded = new Float32Array(PANEL_ROWS * columns);
    for (let panel = 0; panel < count; panel++) {
      const firstRow = (first + panel) * PANEL_ROWS;
      const values = this.#readRows(matrix, firstRow, Math.min(PANEL_ROWS, rows - firstRow));
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) {
        const place = { row: firstRow + Math.floor(bad / columns), column: bad % columns };
        throw new EngineError('WEIGHT_NOT_FINITE', { tensor: source.name, ...place, value: String(values[bad]) });
      }
      quantisePanel(dtype, values, columns, out, panel * bytesPerPanel, errors);
      dequantiseRows(dtype, out.subarray(panel * bytesPerPanel), columns, 0, PANEL_ROWS, decoded);
      values.forEach((value, i) => {
        sums.squaredError += (value - decoded[i]!) ** 2;
        sums.squaredSum += value ** 2;
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
