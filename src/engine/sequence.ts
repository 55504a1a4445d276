import type { ResolvedSampling } from './sampler.js';

export type FinishReason = 'stop' | 'length' | 'abort';

/** What a sequence is asked to do, resolved: tokens in, tokens out. */
export interface TokenRequest {
  /** At least one id, all inside the vocabulary. */
  readonly promptIds: Int32Array;
  /** Most tokens to generate, at least 1. */
  readonly maxTokens: number;
  readonly sampling: ResolvedSampling;
  /** Tokens that end the answer; the one sampled is part of it. */
  readonly stopIds: ReadonlySet<number>;
  readonly signal?: AbortSignal | undefined;
}

/** The token-level life of a request: which tokens are known, how many are computed, which blocks hold them. */
export class Sequence {
  readonly #tokenIds: Int32Array; // prompt, then generated tokens; the first numTokens are valid
  #numTokens: number;
  numComputedTokens = 0;
  blocks: readonly number[] = [];

  /** `sampling` null: nothing is generated, the logits of every prompt token are wanted instead. */
  constructor(
    promptIds: Int32Array,
    readonly maxTokens: number,
    readonly sampling: ResolvedSampling | null,
  ) {
    this.#tokenIds = new Int32Array(promptIds.length + maxTokens);
    this.#tokenIds.set(promptIds);
    this.#numTokens = promptIds.length;
    this.promptLength = promptIds.length;
  }

  readonly promptLength: number;

  get numTokens(): number {
    return this.#numTokens;
  }

  get numGenerated(): number {
    return this.#numTokens - this.promptLength;
  }

  /** Tokens that exist but are not computed yet: the prompt at first, then one after each sampled token. */
  get numPending(): number {
    return this.#numTokens - this.numComputedTokens;
  }

  /** KV slots the sequence can ever need: the last token it may generate is never fed back. */
  get maxSlots(): number {
    return Math.max(this.promptLength, this.#tokenIds.length - 1);
  }

  /** [numTokens] */
  get tokenIds(): Int32Array {
    return this.#tokenIds.subarray(0, this.#numTokens);
  }

  append(id: number): void {
    this.#tokenIds[this.#numTokens++] = id;
  }
}
