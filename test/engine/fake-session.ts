import type { Batch, Session, SessionLimits, StepResult, Want } from '../../src/backend/backend.js';
import { SAMPLE, SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';

export const VOCAB = 1000;

export const limits: SessionLimits = {
  maxTokens: 8,
  maxRows: 4,
  maxSequences: 3,
  contextSize: 64,
  blockSize: 4,
  numBlocks: 16,
  kvDtype: 'f32',
};

/** The token this session "samples" after `id` at `position`; −1 never. */
export function nextToken(id: number, position: number): number {
  return (id * 31 + position * 7 + 11) % VOCAB;
}

/** Tokens a request alone would get. */
export function expectedTokens(promptIds: readonly number[], count: number): number[] {
  const tokens: number[] = [];
  let id = promptIds.at(-1)!;
  for (let i = 0; i < count; i++) {
    id = nextToken(id, promptIds.length - 1 + i);
    tokens.push(id);
  }
  return tokens;
}

/**
 * A session without a model: it keeps a KV cache of token ids and checks on every step that each sequence's slots hold
 * exactly the tokens of positions 0 … contextLen − 1.
 */
export class FakeSession implements Session {
  readonly batches: Batch[] = [];
  readonly #slots = new Map<number, { position: number; id: number }>();
  disposed = false;
  /** Awaited inside each step; lets a test act while a step is in flight. */
  beforeResult: () => Promise<void> | void = () => undefined;

  async step(batch: Batch, want: Want = {}): Promise<StepResult> {
    this.batches.push(batch);
    const numTokens = batch.tokenIds.length;
    if (numTokens === 0 || numTokens > limits.maxTokens) throw new Error(`a step of ${numTokens} tokens`);
    for (let t = 0; t < numTokens; t++) {
      this.#slots.set(batch.slotMapping[t]!, { position: batch.positions[t]!, id: batch.tokenIds[t]! });
    }
    this.#checkContexts(batch);
    await this.beforeResult();
    const numRows = batch.sampling.length / SAMPLING_WORDS;
    if (numRows > limits.maxRows) throw new Error(`a step of ${numRows} rows`);
    const record = (r: number, field: keyof typeof samplingIndex) =>
      batch.sampling[r * SAMPLING_WORDS + samplingIndex[field]]!;
    const tokens = Int32Array.from({ length: numRows }, (_, r) => {
      const row = record(r, 'row');
      return record(r, 'flags') & SAMPLE ? nextToken(batch.tokenIds[row]!, batch.positions[row]!) : -1;
    });
    return {
      tokens,
      logprobs: new Float32Array(numRows).fill(Number.NaN),
      topIds: new Int32Array(0),
      topLogprobs: new Float32Array(0),
      ...(want.logits && { logits: this.#logits(batch, numRows) }),
    };
  }

  sample(): StepResult {
    throw new Error('not used');
  }

  async read(): Promise<Float32Array> {
    throw new Error('not used');
  }

  async dispose(): Promise<void> {
    this.disposed = true;
  }

  /** Row r's logits are its token id everywhere, so that a test can tell rows apart. */
  #logits(batch: Batch, numRows: number): Float32Array {
    const logits = new Float32Array(numRows * VOCAB);
    for (let r = 0; r < numRows; r++) {
      const row = batch.sampling[r * SAMPLING_WORDS + samplingIndex.row]!;
      logits.fill(batch.tokenIds[row]!, r * VOCAB, (r + 1) * VOCAB);
    }
    return logits;
  }

  #checkContexts(batch: Batch): void {
    const numSeqs = batch.contextLens.length;
    const maxBlocks = batch.blockTables.length / numSeqs;
    for (let s = 0; s < numSeqs; s++) {
      const contextLen = batch.contextLens[s]!;
      const count = batch.queryStart[s + 1]! - batch.queryStart[s]!;
      for (let position = 0; position < contextLen; position++) {
        const block = batch.blockTables[s * maxBlocks + Math.floor(position / limits.blockSize)]!;
        const held = this.#slots.get(block * limits.blockSize + (position % limits.blockSize));
        if (held?.position !== position) throw new Error(`sequence ${s}: position ${position} is not in its slot`);
        const t = batch.queryStart[s]! + position - (contextLen - count);
        if (position >= contextLen - count && held.id !== batch.tokenIds[t])
          throw new Error('a slot holds another token');
      }
    }
  }
}
