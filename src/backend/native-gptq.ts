import { EngineError } from '../base/errors.js';
import type { ErrorModel } from '../quantization/quantise-panel.js';
import { chooseIsa } from './native.js';
import { loadNativeAddon, type NativeAddon, type NativeTask } from './native-loader.js';
import { engineError } from './native-session.js';

/**
 * Added to the diagonal of Xᵀ X, relative to its mean, so that directions the text does not show are not free (Frantar
 * et al. 2022, arXiv 2210.17323, section 3.3).
 */
const DAMPING = 0.01;

/** Sums of products of the inputs a matrix has met, Xᵀ X: all that GPTQ needs to know of a text. */
export class InputGram {
  readonly #addon: NativeAddon;
  readonly #isa: string;
  readonly #gram: Float64Array; // [columns, columns], on and above the diagonal
  readonly #signal: AbortSignal | undefined;

  /** Throws BACKEND_UNAVAILABLE, OUT_OF_MEMORY. */
  constructor(
    readonly columns: number,
    private readonly threads: number,
    signal?: AbortSignal,
  ) {
    this.#addon = loadNativeAddon().addon;
    this.#isa = chooseIsa(this.#addon);
    this.#signal = signal;
    try {
      this.#gram = new Float64Array(columns * columns);
    } catch (cause) {
      const what = `calibration of a matrix with ${columns} columns`;
      throw new EngineError('OUT_OF_MEMORY', { bytes: columns * columns * 8, what }, { cause });
    }
  }

  /** x [rows, columns]. Throws ABORTED. */
  async add(x: Float32Array): Promise<void> {
    const { columns, threads } = this;
    await this.#finish(this.#addon.addGram({ isa: this.#isa, columns, threads }, { x, gram: this.#gram }));
  }

  /** Whether all sums are finite, as they are not if an input has been NaN or huge. */
  isFinite(): boolean {
    for (let i = 0; i < this.columns; i++) if (!Number.isFinite(this.#gram[i * (this.columns + 1)]!)) return false;
    return true;
  }

  /** What errors do to outputs, after which the sums are spent. Throws ABORTED, OUT_OF_MEMORY. */
  async toErrorModel(): Promise<Required<ErrorModel>> {
    const { columns, threads } = this;
    const weights = new Float32Array(columns);
    const feedback = new Float32Array(columns * columns);
    const arrays = { gram: this.#gram, weights, feedback };
    await this.#finish(this.#addon.makeErrorModel({ columns, damping: DAMPING, threads }, arrays));
    return { weights, feedback };
  }

  async #finish({ done, cancel }: NativeTask): Promise<void> {
    const signal = this.#signal;
    signal?.addEventListener('abort', cancel, { once: true });
    const failure = await done;
    signal?.removeEventListener('abort', cancel);
    if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
    if (failure) throw engineError(failure);
  }
}
