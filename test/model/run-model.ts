import type { Batch, SessionLimits } from '../../src/backend/backend.js';
import type { Activations } from '../../src/backend/op.js';
import { SAMPLE, SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import { openModel } from '../../src/formats/hub.js';
import { type LoadedModel, loadModel } from '../../src/model/load.js';
import type { QuantisedTypes } from '../../src/model/quantised-types.js';
import type { TestBackend, TestSession } from './backends.js';

const BLOCK_SIZE = 16;

/** One sequence of one model on one backend: position p lies in KV slot p. */
export class ModelRun {
  private constructor(
    readonly model: LoadedModel,
    private readonly session: TestSession,
    private readonly numBlocks: number,
  ) {}

  static async open(
    backend: TestBackend,
    path: string,
    activations: Activations = 'f32',
    quantise?: QuantisedTypes,
  ): Promise<ModelRun> {
    const model = loadModel(await openModel(path), { activations, quantise });
    const contextSize = Math.min(model.config.contextLength, 512);
    const numBlocks = Math.ceil(contextSize / BLOCK_SIZE);
    const limits: SessionLimits = {
      maxTokens: contextSize,
      maxRows: contextSize,
      maxSequences: 1,
      contextSize,
      blockSize: BLOCK_SIZE,
      numBlocks,
      kvDtype: 'f32',
    };
    return new ModelRun(model, await backend.load(model.plan, model.weights, limits), numBlocks);
  }

  /** Logits of every position, [ids.length][vocabSize]; the tokens start at position `first`. */
  async logits(ids: readonly number[], first = 0): Promise<Float32Array[]> {
    const rows = ids.map((_, row) => row);
    const { logits } = await this.session.step(this.#batch(ids, first, rows), { logits: true });
    const { vocabSize } = this.model.config;
    return rows.map((row) => logits!.subarray(row * vocabSize, (row + 1) * vocabSize));
  }

  /** The most likely continuation: prefill, then one token a step. `stop` ends it, the token included. */
  async greedy(prompt: readonly number[], count: number, stop = -1): Promise<number[]> {
    const generated: number[] = [];
    let ids = prompt;
    let first = 0;
    while (generated.length < count && generated.at(-1) !== stop) {
      const { tokens } = await this.session.step(this.#batch(ids, first, [ids.length - 1]));
      first += ids.length;
      ids = [tokens[0]!];
      generated.push(tokens[0]!);
    }
    return generated;
  }

  async dispose(): Promise<void> {
    await this.session.dispose?.();
  }

  #batch(ids: readonly number[], first: number, rows: readonly number[]): Batch {
    const positions = Int32Array.from(ids, (_, i) => first + i);
    const sampling = new Int32Array(rows.length * SAMPLING_WORDS);
    const floats = new Float32Array(sampling.buffer);
    rows.forEach((row, r) => {
      const base = r * SAMPLING_WORDS;
      sampling[base + samplingIndex.row] = row;
      sampling[base + samplingIndex.flags] = SAMPLE;
      for (const off of ['topP', 'typicalP', 'repetitionPenalty'] as const) floats[base + samplingIndex[off]] = 1;
    });
    return {
      tokenIds: Int32Array.from(ids),
      positions,
      slotMapping: positions,
      queryStart: Int32Array.of(0, ids.length),
      contextLens: Int32Array.of(first + ids.length),
      blockTables: Int32Array.from({ length: this.numBlocks }, (_, block) => block),
      sampling,
    };
  }
}

export function maxAbsDiff(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let max = actual.length === expected.length ? 0 : Number.POSITIVE_INFINITY;
  // NaN anywhere is an infinite difference.
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    max = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(max, difference);
  }
  return max;
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
