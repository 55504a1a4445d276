import { readFileSync, writeFileSync } from 'node:fs';
import type { Batch, Session, SessionLimits, StepResult, Want } from '../../src/backend/backend.js';
import { SAMPLE, SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import { encodeHead, readSavedBlocksHead } from '../../src/backend/saved-blocks.js';
import { EngineError } from '../../src/base/errors.js';
import { EngineLoop, type LoopOptions } from '../../src/engine/engine-loop.js';
import { followingBatch } from '../backend/following-batch.js';

export const VOCAB = 1000;
/** Hidden states of this session: [token id, position]. */
export const HIDDEN = 2;

export const limits: SessionLimits = {
  maxTokens: 8,
  maxRows: 4,
  maxSequences: 3,
  contextSize: 64,
  blockSize: 4,
  numBlocks: 16,
  kvDtype: 'f32',
};

/** What attention makes of a token and all those before it. */
function extend(digest: number, id: number): number {
  return (Math.imul(digest ^ id, 0x9e3779b1) + 0x7f4a7c15) >>> 0;
}

function digestOf(ids: ArrayLike<number>): number {
  return Array.prototype.reduce.call(ids, (digest, id) => extend(digest as number, id as number), 0) as number;
}

/** The token this session "samples" after a prefix. */
function nextToken(digest: number, choice: number): number {
  return (digest + choice * 37) % VOCAB;
}

/** Tokens a request alone would get. */
export function expectedTokens(promptIds: readonly number[], count: number, choice = 0): number[] {
  const tokens: number[] = [];
  let digest = digestOf(promptIds);
  for (let i = 0; i < count; i++) {
    tokens.push(nextToken(digest, choice));
    digest = extend(digest, tokens.at(-1)!);
  }
  return tokens;
}

/** One KV slot: a token's position, a digest of all tokens before it, and one of it too. */
interface Slot {
  readonly position: number;
  readonly before: number;
  readonly digest: number;
}

/**
 * A session without a model. Its KV cache keeps digests of prefixes, so that a slot that holds anything but the keys of
 * its own sequence's tokens is found out at once, and so is a sampled token that saw another context.
 */
export class FakeSession implements Session {
  readonly batches: Batch[] = [];
  readonly copies: number[][] = [];
  readonly #slots = new Map<number, Slot>();
  /** Paths, in order. */
  readonly saved: string[] = [];
  readonly loaded: string[] = [];
  disposed = false;
  /** Awaited inside each saving and loading of blocks. */
  beforeSaved: () => Promise<void> | void = () => undefined;
  beforeLoaded: () => Promise<void> | void = () => undefined;
  /** Awaited inside each step; lets a test act while a step is in flight. */
  beforeResult: () => Promise<void> | void = () => undefined;

  constructor(
    readonly limits: SessionLimits,
    /** As in LoopOptions, at least 2: what a token makes of those before it, it reads from the one before it. */
    readonly window: number | null = null,
    readonly maxSteps = 1,
  ) {}

  async step(batch: Batch, want: Want = {}): Promise<StepResult> {
    this.batches.push(batch);
    const { numSteps = 1 } = batch;
    if (numSteps === 1) return this.#step(batch, want, this.beforeResult);
    const numSeqs = batch.contextLens.length;
    const isDecode = batch.tokenIds.length === numSeqs && batch.sampling.length === numSeqs * SAMPLING_WORDS;
    if (numSteps > this.maxSteps || !isDecode) throw new Error(`a call of ${numSteps} steps`);
    if (batch.history || batch.mask || want.logits || want.hidden) throw new Error('steps that cannot follow others');
    let at = batch;
    const tokens: number[] = [];
    for (let step = 0; step < numSteps; step++) {
      if (step > 0) at = followingBatch(at, Int32Array.from(tokens.slice(-numSeqs)), this.limits.blockSize);
      const beforeResult = step === 0 ? this.beforeResult : () => undefined;
      tokens.push(...(await this.#step(at, want, beforeResult)).tokens);
    }
    const none = new Float32Array(0);
    const logprobs = new Float32Array(tokens.length).fill(Number.NaN);
    return { tokens: Int32Array.from(tokens), logprobs, topIds: new Int32Array(0), topLogprobs: none };
  }

  async #step(batch: Batch, want: Want, beforeResult: () => Promise<void> | void): Promise<StepResult> {
    const numTokens = batch.tokenIds.length;
    const numRows = batch.sampling.length / SAMPLING_WORDS;
    const numSeqs = batch.contextLens.length;
    const { maxTokens, maxRows, maxSequences } = this.limits;
    if (numTokens === 0 || numTokens > maxTokens) throw new Error(`a step of ${numTokens} tokens`);
    if (numRows > maxRows) throw new Error(`a step of ${numRows} rows`);
    if (numSeqs > maxSequences) throw new Error(`a step of ${numSeqs} sequences`);
    const digests = this.#compute(batch);
    await beforeResult();
    const record = (r: number, field: keyof typeof samplingIndex) =>
      batch.sampling[r * SAMPLING_WORDS + samplingIndex[field]]!;
    const rows = Array.from({ length: numRows }, (_, r) => record(r, 'row'));
    return {
      tokens: Int32Array.from(rows, (row, r) =>
        record(r, 'flags') & SAMPLE ? nextToken(digests[row]!, record(r, 'choice')) : -1,
      ),
      logprobs: new Float32Array(numRows).fill(Number.NaN),
      topIds: new Int32Array(0),
      topLogprobs: new Float32Array(0),
      // Row r's logits are its token id everywhere, so that a test can tell rows apart.
      ...(want.logits && { logits: this.#logits(rows.map((row) => batch.tokenIds[row]!)) }),
      ...(want.hidden && {
        hidden: Float32Array.from(rows.flatMap((row) => [batch.tokenIds[row]!, batch.positions[row]!])),
      }),
    };
  }

  async copyBlocks(pairs: Int32Array): Promise<void> {
    const { blockSize } = this.limits;
    for (let i = 0; i < pairs.length; i += 2) {
      this.copies.push([pairs[i]!, pairs[i + 1]!]);
      for (let offset = 0; offset < blockSize; offset++) {
        const slot = this.#slots.get(pairs[i]! * blockSize + offset);
        if (slot) this.#slots.set(pairs[i + 1]! * blockSize + offset, slot);
      }
    }
  }

  /** The head is that of other sessions' files; a slot is its position, the digest before it, and its own. */
  async saveBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.saved.push(path);
    const { blockSize } = this.limits;
    const words = [...blocks].flatMap((block) =>
      Array.from({ length: blockSize }, (_, offset) => {
        const slot = this.#slots.get(block * blockSize + offset);
        if (slot === undefined) throw new Error(`block ${block} was saved and is not full`);
        return [slot.position, slot.before, slot.digest];
      }).flat(),
    );
    const sum = words.reduce((digest, word) => extend(digest, word), 0);
    const head = encodeHead(
      { label, numBlocks: blocks.length, blockBytes: 12 * blockSize },
      'reference',
      this.limits,
      [],
    );
    await this.beforeSaved();
    writeFileSync(path, Buffer.concat([head, new Uint8Array(Uint32Array.from([...words, sum]).buffer)]));
  }

  async loadBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.loaded.push(path);
    const head = readSavedBlocksHead(path);
    const bytes = readFileSync(path);
    await this.beforeLoaded();
    const { blockSize } = this.limits;
    const words = new Uint32Array(new Uint8Array(bytes.subarray(-4 * (3 * blocks.length * blockSize + 1))).buffer);
    const sum = words.subarray(0, -1).reduce((digest, word) => extend(digest, word), 0);
    if (sum !== words.at(-1) || head.numBlocks !== blocks.length || Buffer.compare(head.label, label) !== 0) {
      throw new EngineError('PROMPT_CACHE_INVALID', { path, problem: 'it is damaged' });
    }
    blocks.forEach((block, i) => {
      for (let offset = 0; offset < blockSize; offset++) {
        const [position, before, digest] = words.subarray(3 * (i * blockSize + offset));
        this.#slots.set(block * blockSize + offset, { position: position!, before: before!, digest: digest! });
      }
    });
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

  #logits(rows: readonly number[]): Float32Array {
    const logits = new Float32Array(rows.length * VOCAB);
    rows.forEach((value, row) => {
      logits.fill(value, row * VOCAB, (row + 1) * VOCAB);
    });
    return logits;
  }

  /** Writes the step's tokens to their slots, after a look at every earlier one; digests by token. */
  #compute(batch: Batch): number[] {
    const { blockSize } = this.limits;
    const digests: number[] = [];
    const maxBlocks = batch.blockTables.length / batch.contextLens.length;
    batch.contextLens.forEach((contextLen, s) => {
      const [first, end] = [batch.queryStart[s]!, batch.queryStart[s + 1]!];
      const start = contextLen - (end - first);
      const slotOf = (position: number) =>
        batch.blockTables[s * maxBlocks + Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      let digest = 0;
      for (let position = 0; position < start; position++) {
        if (this.window !== null && position <= start - this.window) continue;
        const slot = this.#slots.get(slotOf(position));
        if (slot?.position !== position) throw new Error(`sequence ${s}: position ${position} is not in its slot`);
        const isFirst = position === 0 || (this.window !== null && position === Math.max(0, start - this.window + 1));
        if (!isFirst && slot.before !== digest) throw new Error(`sequence ${s}: slot ${position} is of another one`);
        digest = slot.digest;
      }
      for (let t = first; t < end; t++) {
        const position = start + t - first;
        if (batch.positions[t] !== position) throw new Error(`sequence ${s}: token ${t} has a wrong position`);
        if (batch.slotMapping[t] !== slotOf(position)) throw new Error(`sequence ${s}: token ${t} has a wrong slot`);
        const before = digest;
        digest = extend(before, batch.tokenIds[t]!);
        digests.push(digest);
        this.#slots.set(slotOf(position), { position, before, digest });
      }
    });
    return digests;
  }
}

/** A loop on a fake session. */
export function fakeLoop(more: Partial<SessionLimits> = {}, options: Partial<LoopOptions> = {}, maxSteps = 1) {
  const all = { ...limits, ...more };
  const session = new FakeSession(all, options.window ?? null, maxSteps);
  return { session, loop: new EngineLoop(session, all, { vocabSize: VOCAB, hiddenSize: HIDDEN, ...options }) };
}
