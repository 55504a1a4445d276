import type { Batch, SessionLimits } from '../backend/backend.js';
import { nativeCpuBackend } from '../backend/native.js';
import { InputGram } from '../backend/native-gptq.js';
import type { Buffer } from '../backend/op.js';
import type { Plan } from '../backend/plan.js';
import { SAMPLING_WORDS, samplingIndex } from '../backend/sampling.js';
import { EngineError } from '../base/errors.js';
import type { ModelSource } from '../formats/hub.js';
import { type LoadedModel, loadModel } from '../model/load.js';
import type { ErrorModel } from '../quantization/quantise-panel.js';

/** A text that shows what a model's matrices are given. */
export interface CalibrationText {
  readonly tokenIds: ArrayLike<number>;
  /** What the model's texts begin with; every window does. */
  readonly prefix: ArrayLike<number>;
}

export interface CalibrationOptions {
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  /** Tokens run so far and in all, of one pass over the text. */
  readonly onProgress?: ((doneTokens: number, totalTokens: number) => void) | undefined;
  /** Bytes for sums over inputs; what does not fit is left to another pass over the text. Default: 2 GiB. */
  readonly maxBytes?: number | undefined;
}

/** Tokens that sums over inputs need to say something, and more than which add little. */
export const MIN_CALIBRATION_TOKENS = 1024;
export const MAX_CALIBRATION_TOKENS = 1 << 20;

const WINDOW = 512;
const BLOCK_SIZE = 16;
const DEFAULT_MAX_BYTES = 2 ** 31;

/**
 * What errors in a model's matrices do to their outputs, from the inputs they have on a text: the model runs unquantised,
 * with every buffer kept, and the input of every matrix is read after each window. Passes over the text are made as error
 * models are asked for, as many inputs at a time as memory allows.
 */
export class Calibration {
  readonly #model: LoadedModel;
  readonly #inputs: ReadonlyMap<string, Buffer>;
  readonly #windows: readonly Int32Array[];
  readonly #options: CalibrationOptions;
  /** By buffer id, for as long as tensors are left that have it as their input. */
  readonly #models = new Map<number, ErrorModel>();
  readonly #waiting: string[];

  /**
   * `tensors`: names of those that will be asked for, in that order. Throws CALIBRATION_TOO_SHORT, and what loading the model
   * throws.
   */
  constructor(source: ModelSource, tensors: readonly string[], text: CalibrationText, options: CalibrationOptions) {
    this.#model = loadModel(source, { activations: 'f32', reuseBuffers: false });
    this.#inputs = inputsOf(this.#model.plan);
    this.#waiting = tensors.filter((name) => this.#inputs.has(name));
    this.#windows = windowsOf(text, Math.min(this.#model.config.contextLength, WINDOW));
    this.#options = options;
  }

  /**
   * Of the tensor, once; undefined for one that is no linear layer's. Throws CALIBRATION_INVALID, OUT_OF_MEMORY, ABORTED
   * and what running the model throws.
   */
  async errorsOf(tensor: string): Promise<ErrorModel | undefined> {
    const input = this.#inputs.get(tensor);
    if (input === undefined) return undefined;
    if (!this.#models.has(input.id)) await this.#run();
    const errors = this.#models.get(input.id);
    this.#waiting.splice(this.#waiting.indexOf(tensor), 1);
    if (!this.#waiting.some((name) => this.#inputs.get(name)!.id === input.id)) this.#models.delete(input.id);
    return errors;
  }

  /** One pass over the text, for the next inputs that fit into memory, one at least. */
  async #run(): Promise<void> {
    const { threads, signal, onProgress, maxBytes = DEFAULT_MAX_BYTES } = this.#options;
    const grams = new Map<Buffer, InputGram>();
    let bytes = 0;
    for (const name of this.#waiting) {
      const input = this.#inputs.get(name)!;
      if (grams.has(input) || this.#models.has(input.id)) continue;
      bytes += input.width ** 2 * Float64Array.BYTES_PER_ELEMENT;
      if (grams.size > 0 && bytes > maxBytes) break;
      grams.set(input, new InputGram(input.width, threads, signal));
    }
    const total = this.#windows.reduce((sum, window) => sum + window.length, 0);
    let done = 0;
    const longest = Math.max(...this.#windows.map((window) => window.length));
    const { plan, weights } = this.#model;
    const session = await nativeCpuBackend({ threads }).load(plan, weights, limitsFor(longest), signal);
    try {
      for (const window of this.#windows) {
        await session.step(batchOf(window));
        for (const [input, gram] of grams) await gram.add(await session.read(input));
        done += window.length;
        onProgress?.(done, total);
      }
    } finally {
      await session.dispose();
    }
    for (const [input, gram] of grams) {
      if (!gram.isFinite()) {
        const tensor = this.#waiting.find((name) => this.#inputs.get(name) === input)!;
        throw new EngineError('CALIBRATION_INVALID', { tensor });
      }
      this.#models.set(input.id, await gram.toErrorModel());
      grams.delete(input);
    }
  }
}

/**
 * The buffer that each matrix of a linear layer reads, by the name of its tensor. Left out are embeddings that are the
 * head too, matrices with several inputs, and those whose input an op changes after it has been read.
 */
function inputsOf(plan: Plan): ReadonlyMap<string, Buffer> {
  const inputs = new Map<string, Buffer | null>();
  plan.ops.forEach((op, index) => {
    if (op.op === 'embed') inputs.set(op.table.name, null);
    if (op.op !== 'linear') return;
    const before = inputs.get(op.weight.name);
    const changed = plan.ops.slice(index).some((later) => {
      return (later.op === 'rope' || later.op === 'add' || later.op === 'addPositions') && later.x.id === op.x.id;
    });
    const sole = !changed && (before === undefined || before?.id === op.x.id);
    inputs.set(op.weight.name, sole ? (before ?? op.x) : null);
  });
  return new Map([...inputs].filter((entry): entry is [string, Buffer] => entry[1] !== null));
}

function windowsOf({ tokenIds, prefix }: CalibrationText, longest: number): Int32Array[] {
  const numTokens = Math.min(tokenIds.length, MAX_CALIBRATION_TOKENS);
  if (numTokens < MIN_CALIBRATION_TOKENS) {
    throw new EngineError('CALIBRATION_TOO_SHORT', { tokens: numTokens, needed: MIN_CALIBRATION_TOKENS });
  }
  const ids = Int32Array.from(tokenIds);
  const length = Math.max(1, longest - prefix.length);
  return Array.from({ length: Math.floor(numTokens / length) }, (_, w) =>
    Int32Array.from([...Array.from(prefix), ...ids.subarray(w * length, (w + 1) * length)]),
  );
}

function limitsFor(numTokens: number): SessionLimits {
  return {
    maxTokens: numTokens,
    maxRows: numTokens,
    maxSequences: 1,
    contextSize: numTokens,
    blockSize: BLOCK_SIZE,
    numBlocks: Math.ceil(numTokens / BLOCK_SIZE),
    kvDtype: 'f32',
  };
}

/** A window from its beginning; all rows go through the last layer's end, none is sampled. */
function batchOf(tokenIds: Int32Array): Batch {
  const positions = tokenIds.map((_, position) => position);
  const sampling = new Int32Array(tokenIds.length * SAMPLING_WORDS);
  positions.forEach((row) => {
    sampling[row * SAMPLING_WORDS + samplingIndex.row] = row;
  });
  return {
    tokenIds,
    positions,
    slotMapping: positions,
    queryStart: Int32Array.of(0, tokenIds.length),
    contextLens: Int32Array.of(tokenIds.length),
    blockTables: Int32Array.from({ length: Math.ceil(tokenIds.length / BLOCK_SIZE) }, (_, block) => block),
    sampling,
  };
}
