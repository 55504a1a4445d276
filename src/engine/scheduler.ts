import type { SessionLimits } from '../backend/backend.js';
import { invariant } from '../base/errors.js';
import type { BlockPool } from './block-pool.js';
import type { Sequence } from './sequence.js';

/** One sequence's share of a step: it catches up by this many tokens. */
export interface ScheduledPart {
  readonly sequence: Sequence;
  readonly numTokens: number;
}

/**
 * Decides who computes what in the next step. Pure and synchronous; there are no phases, every sequence just catches
 * up, so prefill, chunks of it and decode are one case.
 *
 * Admission is first come, first served, and a sequence is admitted only when blocks for all it can ever need are free:
 * nothing admitted can run out, so there is no preemption and no deadlock.
 */
export class Scheduler {
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = []; // in order of admission

  constructor(
    readonly pool: BlockPool,
    readonly limits: SessionLimits,
  ) {}

  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.#running.length === 0;
  }

  add(sequence: Sequence): void {
    this.#waiting.push(sequence);
  }

  /** Takes a sequence out, wherever it is, and frees its blocks. */
  remove(sequence: Sequence): void {
    for (const list of [this.#waiting, this.#running]) {
      const index = list.indexOf(sequence);
      if (index >= 0) list.splice(index, 1);
    }
    this.pool.release(sequence.blocks);
    sequence.blocks = [];
  }

  /** The next step's parts: running sequences that owe one token first, then the prompts, within the token and row budgets. */
  schedule(): ScheduledPart[] {
    this.#admit();
    let tokens = this.limits.maxTokens;
    let rows = this.limits.maxRows;
    const parts: ScheduledPart[] = [];
    const decodeFirst = [...this.#running].sort((a, b) => Number(a.numPending > 1) - Number(b.numPending > 1));
    for (const sequence of decodeFirst) {
      // A sequence that only wants logits takes one row per token, any other at most one row.
      const numTokens = Math.min(sequence.numPending, tokens, sequence.sampling === null ? rows : tokens);
      if (numTokens === 0 || rows === 0) continue;
      parts.push({ sequence, numTokens });
      tokens -= numTokens;
      rows -= sequence.sampling === null ? numTokens : 1;
    }
    return parts;
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#running.length < this.limits.maxSequences) {
      const sequence = this.#waiting[0]!;
      const blocks = this.pool.allocate(Math.ceil(sequence.maxSlots / this.limits.blockSize));
      if (blocks === null) return;
      sequence.blocks = blocks;
      this.#running.push(this.#waiting.shift()!);
    }
  }

  checkIntegrity(): void {
    this.pool.checkIntegrity();
    const owned = this.#running.reduce((sum, sequence) => sum + sequence.blocks.length, 0);
    invariant(owned === this.pool.numBlocks - this.pool.numFree, 'blocks are taken that no running sequence owns');
    for (const sequence of this.#waiting) invariant(sequence.blocks.length === 0, 'a waiting sequence owns blocks');
  }
}
