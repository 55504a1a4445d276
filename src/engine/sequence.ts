import type { PrefixNode } from './prefix-cache.js';
import { type ResolvedSampling, samplingRecord, unsampledRecord, usesHistory } from './sampler.js';

export type FinishReason = 'stop' | 'length' | 'abort';

/** Whose a request is, and how urgent. */
export interface Standing {
  /** Tenants share the engine fairly. Default: all requests are one tenant's. */
  readonly tenant?: string | undefined;
  /** Cached prompts are shared within a tenant and salt. */
  readonly cacheSalt?: string | undefined;
  /** Lower goes first within a tenant: priority p is an arrival 10 · p seconds later. Default 0. */
  readonly priority?: number | undefined;
}

/** What a request is asked to do, resolved: tokens in, tokens out. */
export interface TokenRequest extends Standing {
  /** At least one id, all inside the vocabulary. */
  readonly promptIds: Int32Array;
  /** Most tokens to generate, at least 1. */
  readonly maxTokens: number;
  readonly sampling: ResolvedSampling;
  /** Tokens that end the answer; the one sampled is part of it. */
  readonly stopIds: ReadonlySet<number>;
  /** Answers to the prompt. Default 1. */
  readonly n?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is wanted of a sequence's tokens. */
export type Wanted =
  | { readonly kind: 'tokens'; readonly sampling: ResolvedSampling }
  /** Logits after every prompt token. */
  | { readonly kind: 'logits' }
  /** What the head reads, of every prompt token or of the last one. */
  | { readonly kind: 'hidden'; readonly everyRow: boolean };

/** Milliseconds that one step of priority is worth. */
const PRIORITY_MS = 10_000;

/** The token-level life of one answer: which tokens are known, how many are computed, which blocks hold them. */
export class Sequence {
  #tokenIds: Int32Array; // prompt, then generated tokens; the first numTokens are valid. The request's own until it grows
  #numTokens: number;
  #blocks: Int32Array = new Int32Array(0); // the first numBlocks are valid; −1 once the block has left every sliding window
  #numBlocks = 0;
  readonly #blockKeys: string[] = [];
  readonly promptLength: number;
  /** Null: nothing is generated. */
  readonly sampling: ResolvedSampling | null;
  readonly samplingRecord: Int32Array; // [SAMPLING_WORDS] without its row
  readonly tenant: string;
  /** Prompts are shared among sequences of one scope. */
  readonly scope: string;
  /** Milliseconds; the sequence with the lowest goes first. Since it is fixed, whoever waits overtakes later arrivals. */
  readonly order: number;
  numComputedTokens = 0;
  /** Prompt tokens found in the prefix cache when the sequence was first admitted; −1 before. */
  numCachedTokens = -1;
  /** Tokens that its tenant has been charged for: those computed again after a preemption are free. */
  numChargedTokens = 0;
  /** Other answers to the same prompt, which begin when it is computed. */
  forks: Sequence[] = [];
  /** Kept by the prefix cache: how many of its blocks are in the tree, the last one's node, nodes it is to compute. */
  numCachedBlocks = 0;
  node: PrefixNode | null = null;
  announced: PrefixNode[] = [];
  /** It waits for saved keys and values of its prompt, which are being read. */
  isRestoring = false;
  /** What it waits for another sequence to compute. */
  awaited: PrefixNode | null = null;

  constructor(
    promptIds: Int32Array,
    readonly maxTokens: number,
    readonly wanted: Wanted,
    /** Tokens per KV block. */
    readonly blockSize: number,
    standing: Standing = {},
    /** Milliseconds. */
    arrival = 0,
    /** Which of the answers to its prompt. */
    readonly choice = 0,
  ) {
    this.#tokenIds = promptIds;
    this.#numTokens = promptIds.length;
    this.promptLength = promptIds.length;
    this.sampling = wanted.kind === 'tokens' ? wanted.sampling : null;
    this.samplingRecord = this.sampling ? samplingRecord(this.sampling, choice, promptIds.length) : unsampledRecord();
    this.tenant = standing.tenant ?? '';
    this.scope = JSON.stringify([this.tenant, standing.cacheSalt ?? '']);
    this.order = arrival + (standing.priority ?? 0) * PRIORITY_MS;
  }

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
    return Math.max(this.promptLength, this.promptLength + this.maxTokens - 1);
  }

  /** Whether results are wanted of every token, which then has to be computed here. */
  get everyRow(): boolean {
    return this.wanted.kind === 'logits' || (this.wanted.kind === 'hidden' && this.wanted.everyRow);
  }

  /** Result rows of a step that computes this many tokens. */
  numRows(numTokens: number): number {
    if (this.everyRow) return numTokens;
    return numTokens === this.numPending ? 1 + this.forks.length : 0;
  }

  /** Tokens that may be sampled one after another before anyone looks at them: 1 if each has to be prepared for. */
  get mostSteps(): number {
    const decodes = this.sampling !== null && this.numPending === 1 && this.forks.length === 0;
    return decodes && !usesHistory(this.sampling) ? this.maxTokens - this.numGenerated : 1;
  }

  /** [numTokens] */
  get tokenIds(): Int32Array {
    return this.#tokenIds.subarray(0, this.#numTokens);
  }

  append(id: number): void {
    if (this.#numTokens === this.#tokenIds.length) {
      this.#tokenIds = grown(this.#tokenIds, this.#numTokens + 1, this.promptLength + this.maxTokens);
    }
    this.#tokenIds[this.#numTokens++] = id;
  }

  /** The tokens of block i, all of which are known, as text: two UTF-16 units a token. */
  blockKey(i: number): string {
    const known = this.#blockKeys[i];
    if (known !== undefined) return known;
    const bytes = Buffer.from(this.#tokenIds.buffer, 4 * i * this.blockSize, 4 * this.blockSize);
    const key = bytes.toString('utf16le');
    this.#blockKeys[i] = key;
    return key;
  }

  /** [numBlocks] in order of position. */
  get blocks(): Int32Array {
    return this.#blocks.subarray(0, this.#numBlocks);
  }

  get numBlocks(): number {
    return this.#numBlocks;
  }

  /** Blocks that the sequence can ever need. */
  get maxBlocks(): number {
    return Math.ceil(this.maxSlots / this.blockSize);
  }

  addBlocks(blocks: ArrayLike<number>): void {
    const needed = this.#numBlocks + blocks.length;
    if (needed > this.#blocks.length) this.#blocks = grown(this.#blocks, needed, this.maxBlocks);
    this.#blocks.set(blocks, this.#numBlocks);
    this.#numBlocks += blocks.length;
  }

  setBlock(index: number, block: number): void {
    this.#blocks[index] = block;
  }

  clearBlocks(): void {
    this.#numBlocks = 0;
  }
}

/** A copy with room for `needed` values, and for half as many again as there were, but never for more than `most`. */
function grown(values: Int32Array, needed: number, most: number): Int32Array {
  const copy = new Int32Array(Math.min(most, Math.max(needed, Math.ceil(values.length * 1.5))));
  copy.set(values);
  return copy;
}
