import type { SessionLimits } from '../backend/backend.js';
import { EngineError, invariant } from '../base/errors.js';
import type { BlockPool } from './block-pool.js';
import type { PrefixCache, PrefixNode } from './prefix-cache.js';
import type { Sequence } from './sequence.js';
import { Tenants } from './tenants.js';

/** One sequence's share of a step: it catches up by this many tokens. */
export interface ScheduledPart {
  readonly sequence: Sequence;
  readonly numTokens: number;
}

export interface Schedule {
  readonly parts: readonly ScheduledPart[];
  /** Blocks to copy before the step: [numPairs, 2] from, to. */
  readonly copies: readonly number[];
  /** Steps to do before we look again: the sequences own blocks for all of them. More than 1 only where each has one token. */
  readonly numSteps: number;
}

export interface SchedulerOptions {
  /** Most sequences that wait; one more is refused with QUEUE_FULL. */
  readonly maxWaiting: number;
  /** Prompt tokens of a step in which other sequences wait for their next token: it should not keep them long. */
  readonly maxPromptTokensBesideDecode: number;
  /** Positions that the layer that looks back farthest sees; null if one sees them all. */
  readonly window: number | null;
  /** Most steps to do at once. */
  readonly maxSteps: number;
}

/** Prompts looked up in the prefix cache in one step: when a thousand come together, the next steps do the rest. */
const MAX_LOOKUPS = 64;

/**
 * Decides who computes what in the next step. Pure and synchronous; there are no phases, every sequence just catches
 * up, so prefill, chunks of it, decode and computing again after a preemption are one case.
 *
 * A sequence starts when blocks for all tokens it has are available, and takes more as it grows. When none are left, the
 * sequence that started last gives its own back and waits again (preemption by recompute: what it has said stays said).
 * The one that started first is never preempted, and any one fits by itself: so there is always progress, and no deadlock.
 */
export class Scheduler {
  readonly #tenants = new Tenants();
  readonly #running: Sequence[] = []; // in order of start
  #numPreemptions = 0;

  constructor(
    readonly pool: BlockPool,
    readonly prefixCache: PrefixCache,
    readonly limits: SessionLimits,
    readonly options: SchedulerOptions,
  ) {}

  get isIdle(): boolean {
    return this.#running.length === 0 && this.#tenants.numWaiting === 0;
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#tenants.numWaiting;
  }

  get numPreemptions(): number {
    return this.#numPreemptions;
  }

  /** Throws QUEUE_FULL. */
  add(sequence: Sequence): void {
    const { maxWaiting } = this.options;
    const waiting = this.numWaiting;
    if (waiting >= maxWaiting) throw new EngineError('QUEUE_FULL', { waiting, limit: maxWaiting });
    const { numBlocks, blockSize, maxSequences } = this.limits;
    invariant(sequence.maxSlots <= numBlocks * blockSize, 'a request is larger than the KV cache');
    invariant(sequence.forks.length < maxSequences, 'a request has more answers than a step has sequences');
    this.#tenants.add(sequence);
  }

  /** Takes a sequence out, wherever it is, and gives back its blocks. One that is not here is left alone. */
  remove(sequence: Sequence): void {
    if (this.#tenants.remove(sequence)) return;
    const index = this.#running.indexOf(sequence);
    if (index < 0) return;
    this.#running.splice(index, 1);
    this.#giveBack(sequence);
  }

  /**
   * The next step: sequences that owe one token first, then those with more, in order of start, then new ones, within
   * the step's tokens and rows. Empty only if nothing is left to do, or saved prompts are being read.
   */
  schedule(): Schedule {
    const parts = new Map<Sequence, number>();
    const copies: number[] = [];
    const budget = { tokens: this.limits.maxTokens, rows: this.limits.maxRows, lookups: MAX_LOOKUPS };

    const give = (sequence: Sequence, mostTokens: number): void => {
      const rows = sequence.everyRow ? budget.rows : Infinity;
      const numTokens = Math.min(sequence.numPending, mostTokens, budget.tokens, rows);
      if (numTokens <= 0 || sequence.numRows(numTokens) > budget.rows) return;
      while (!this.#grow(sequence, numTokens, copies)) {
        const victim = this.#running.at(-1)!;
        const given = parts.get(victim);
        if (given !== undefined) {
          budget.tokens += given;
          budget.rows += victim.numRows(given);
          parts.delete(victim);
        }
        this.#preempt(victim);
        if (victim === sequence) return;
      }
      parts.set(sequence, numTokens);
      budget.tokens -= numTokens;
      budget.rows -= sequence.numRows(numTokens);
    };

    const running = [...this.#running]; // without those preempted on the way, which own no blocks any more
    for (const sequence of running) if (sequence.numPending === 1 && sequence.numBlocks > 0) give(sequence, 1);
    let promptTokens = parts.size > 0 ? this.options.maxPromptTokensBesideDecode : Infinity;
    const catchUp = (sequence: Sequence): void => {
      give(sequence, promptTokens);
      promptTokens -= parts.get(sequence) ?? 0;
    };
    for (const sequence of running) if (sequence.numPending > 1 && sequence.numBlocks > 0) catchUp(sequence);
    while (budget.tokens > 0 && promptTokens > 0) {
      const sequence = this.#admit(budget);
      if (sequence === null) break;
      catchUp(sequence);
    }

    for (const [sequence, numTokens] of parts) {
      this.#tenants.charge(sequence, sequence.numComputedTokens + numTokens);
    }
    const numSteps = this.#reserveSteps([...parts.keys()]);
    return { parts: Array.from(parts, ([sequence, numTokens]) => ({ sequence, numTokens })), copies, numSteps };
  }

  /** A step has computed this many tokens of a running sequence. */
  advance(sequence: Sequence, numTokens: number): void {
    sequence.numComputedTokens += numTokens;
    this.#tenants.charge(sequence, sequence.numComputedTokens); // further steps of a call are charged as they are taken
    this.prefixCache.commit(sequence);
    this.#dropBlocksOutsideWindow(sequence);
  }

  /** Another answer to the prompt that `sequence` has just computed starts with the same blocks. */
  fork(sequence: Sequence, other: Sequence): void {
    for (const block of sequence.blocks) if (block >= 0) this.pool.retain(block);
    other.addBlocks(sequence.blocks);
    other.numComputedTokens = sequence.numComputedTokens;
    other.numCachedTokens = sequence.numCachedTokens;
    other.numChargedTokens = sequence.numChargedTokens;
    other.numCachedBlocks = sequence.numCachedBlocks;
    other.node = sequence.node;
    this.#start(other);
  }

  #start(sequence: Sequence): void {
    this.#running.push(sequence);
    this.#tenants.started(sequence);
  }

  /** Starts the next sequence that may; null if none waits, or the next one has to wait for blocks or for its place. */
  #admit(budget: { lookups: number }): Sequence | null {
    const numFree = this.limits.maxSequences - this.#running.length - this.#numForksToCome();
    if (numFree <= 0) return null;
    let nodes: readonly PrefixNode[] = [];
    const sequence = this.#tenants.next((candidate) => {
      if (candidate.isRestoring) return false;
      // What another sequence is computing just now is worth waiting for.
      if (candidate.awaited !== null && candidate.awaited.owner !== null) return false;
      if (budget.lookups-- <= 0) return false;
      const match = this.prefixCache.match(candidate);
      candidate.awaited = match.announced;
      nodes = match.nodes;
      return match.announced === null;
    });
    if (sequence === null || sequence.forks.length >= numFree) return null;

    for (const { block } of nodes) this.pool.retain(block);
    const blocks = Array.from(nodes, ({ block }) => block);
    const numMore = Math.ceil(sequence.numTokens / this.limits.blockSize) - blocks.length;
    // Those who run already and can still grow will soon need a block each.
    const numGrowing = this.#running.reduce((sum, { numBlocks, maxBlocks }) => sum + Number(numBlocks < maxBlocks), 0);
    const more = this.pool.numAvailable >= numMore + numGrowing ? this.pool.allocate(numMore) : null;
    if (more === null) {
      this.pool.release(blocks);
      return null;
    }
    sequence.addBlocks(blocks);
    sequence.addBlocks(more);
    sequence.numComputedTokens = blocks.length * this.limits.blockSize;
    sequence.numCachedBlocks = blocks.length;
    sequence.node = nodes.at(-1) ?? null;
    sequence.numChargedTokens = Math.max(sequence.numChargedTokens, sequence.numComputedTokens);
    if (sequence.numCachedTokens < 0) {
      sequence.numCachedTokens = sequence.numComputedTokens;
      this.prefixCache.count(sequence);
    }
    this.prefixCache.announce(sequence);
    this.#start(sequence);
    this.#tenants.remove(sequence);
    return sequence;
  }

  #numForksToCome(): number {
    return this.#running.reduce((sum, { forks }) => sum + forks.length, 0);
  }

  /** Makes room for the next tokens; false if too few blocks are available. A block that others read is copied first. */
  #grow(sequence: Sequence, numTokens: number, copies: number[]): boolean {
    const { blockSize } = this.limits;
    const start = sequence.numComputedTokens;
    const numMore = Math.max(0, Math.ceil((start + numTokens) / blockSize) - sequence.numBlocks);
    const first = Math.floor(start / blockSize);
    const shared = start % blockSize > 0 && this.pool.isShared(sequence.blocks[first]!);
    const more = this.pool.allocate(numMore + Number(shared));
    if (more === null) return false;
    if (shared) {
      const copy = more.pop()!;
      copies.push(sequence.blocks[first]!, copy);
      this.pool.release([sequence.blocks[first]!]);
      sequence.setBlock(first, copy);
    }
    sequence.addBlocks(more);
    return true;
  }

  /**
   * How many steps may follow each other without us, with blocks taken for them: a power of two, and only while everybody
   * has a part in them and nobody waits, so that whoever comes waits for one call at most. Too few blocks make fewer
   * steps; nobody is preempted for them.
   */
  #reserveSteps(sequences: readonly Sequence[]): number {
    const { maxSteps } = this.options;
    const { blockSize, contextSize } = this.limits;
    if (maxSteps === 1 || this.numWaiting > 0 || sequences.length < this.#running.length) return 1;
    const most = sequences.reduce(
      (least, sequence) => Math.min(least, sequence.mostSteps, contextSize - sequence.numComputedTokens),
      maxSteps,
    );
    for (let numSteps = 2 ** Math.floor(Math.log2(Math.max(1, most))); numSteps > 1; numSteps /= 2) {
      const numMore = sequences.map(({ numComputedTokens, numBlocks }) =>
        Math.max(0, Math.ceil((numComputedTokens + numSteps) / blockSize) - numBlocks),
      );
      if (numMore.reduce((sum, count) => sum + count, 0) > this.pool.numAvailable) continue;
      for (const [i, sequence] of sequences.entries()) sequence.addBlocks(this.pool.allocate(numMore[i]!)!);
      return numSteps;
    }
    return 1;
  }

  #preempt(sequence: Sequence): void {
    this.#numPreemptions++;
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#tenants.add(sequence);
    this.#giveBack(sequence);
    sequence.numComputedTokens = 0;
  }

  #giveBack(sequence: Sequence): void {
    this.prefixCache.withdraw(sequence);
    this.pool.release(sequence.blocks);
    sequence.clearBlocks();
    this.#tenants.stopped(sequence);
  }

  #dropBlocksOutsideWindow(sequence: Sequence): void {
    const { window } = this.options;
    if (window === null) return;
    // The next token sees its own position and window − 1 before it.
    const numOutside = Math.floor((sequence.numComputedTokens - window + 1) / this.limits.blockSize);
    for (let i = numOutside - 1; i >= 0 && sequence.blocks[i]! >= 0; i--) {
      this.pool.release([sequence.blocks[i]!]);
      sequence.setBlock(i, -1);
    }
  }

  /** `others`: blocks that are referred to, once each, besides those of running sequences. */
  checkIntegrity(others: Iterable<number> = []): void {
    const references = new Map<number, number>();
    for (const block of others) references.set(block, 1);
    const running = new Map<string, number>();
    for (const sequence of this.#running) {
      running.set(sequence.tenant, (running.get(sequence.tenant) ?? 0) + 1);
      for (const block of sequence.blocks) if (block >= 0) references.set(block, (references.get(block) ?? 0) + 1);
    }
    this.pool.checkIntegrity(references);
    this.prefixCache.checkIntegrity(new Set(this.#running));
    this.#tenants.checkIntegrity(running);
    invariant(this.#running.length + this.#numForksToCome() <= this.limits.maxSequences, 'too many sequences run');
  }
}
