import type { Session, SessionLimits } from '../backend/backend.js';
import { EngineError } from '../base/errors.js';
import type { PrefixCache, PrefixNode } from './prefix-cache.js';
import { PromptFolder, type PromptFolderOptions, type SavedPrompt } from './prompt-folder.js';
import type { Sequence } from './sequence.js';

export interface SavedPromptsOptions extends PromptFolderOptions {
  /** Of one KV block in a file, about. */
  readonly blockBytes: number;
  /** Milliseconds without requests before something is saved. Default 1000. */
  readonly idleMs?: number | undefined;
}

/** A request that comes while a prompt is being written waits for that, so nothing is written in a short pause. */
const DEFAULT_IDLE_MS = 1000;
/** What is computed faster than a file is found and read is not saved. Tokens. */
const MIN_TOKENS = 64;
/**
 * Tokens that are read from a file in the time in which one is computed, cautiously: a file is worth reading if at least
 * one in so many of its tokens is needed.
 */
const TOKENS_READ_PER_COMPUTED = 4;
/** Prompts that wait to be saved; those shared longest ago are given up. */
const MAX_UNSAVED = 16;

interface Reading {
  readonly blocks: readonly number[];
  readonly waiting: Sequence[];
  readonly done: Promise<void>;
}

/**
 * Keeps keys and values of shared beginnings of prompts in files, so that they are there after a restart. A session reads
 * and writes the bytes; here is decided which.
 *
 * Worth saving is what a second request has found in the prefix cache, up to where the two part or the second one ends: a
 * system prompt. A request that only goes on where another ended (the next turn of a conversation) makes nothing worth
 * saving, since each turn would be written again; nor do several answers to one prompt, which are one request. A program
 * that had nothing of the kind, and read nothing either, saves its last prompt when it ends: it asked one question, and
 * is often run again.
 *
 * Whoever finds the longest saved beginning has it read into blocks that are free, then entered in the prefix cache, and
 * is scheduled as usual; if anything fails, the prompt is computed.
 */
export class SavedPrompts {
  readonly #folder: PromptFolder;
  readonly #reading = new Map<SavedPrompt, Reading>();
  readonly #unsaved = new Set<PrefixNode>(); // in order of last use
  #last: Sequence | null = null;
  /** Something was worth saving or reading. */
  #wasUseful = false;
  #canSave = true;
  #isClosed = false;
  #onArrival: () => void = () => undefined;
  #timer: NodeJS.Timeout | null = null;
  #saving: Promise<void> | null = null;

  constructor(
    readonly session: Session,
    readonly prefixCache: PrefixCache,
    readonly limits: SessionLimits,
    readonly options: SavedPromptsOptions,
    /** Whether no request is there. */
    readonly isIdle: () => boolean,
  ) {
    this.#folder = new PromptFolder(options, limits.blockSize, limits.numBlocks);
    prefixCache.onCount = (sequence) => this.#look(sequence);
  }

  get isReading(): boolean {
    return this.#reading.size > 0;
  }

  /** Until something has been read, or another request comes. Never rejects. */
  async news(): Promise<void> {
    const arrival = new Promise<void>((resolve) => {
      this.#onArrival = resolve;
    });
    await Promise.race([arrival, ...Array.from(this.#reading.values(), ({ done }) => done)]);
  }

  /** Blocks that are being filled. */
  get blocks(): readonly number[] {
    return Array.from(this.#reading.values(), ({ blocks }) => blocks).flat();
  }

  /**
   * A request has come: nothing is saved for now. If the beginning of its prompt is saved, that is read, and keeps the
   * sequence waiting until it is there; `numSpare` available blocks are left to others.
   */
  arrive(sequence: Sequence, numSpare: number): void {
    this.#stopTimer();
    this.#restore(sequence, numSpare);
    this.#onArrival();
  }

  /** The last request has ended: after a while without another one, what is worth it is saved. */
  saveWhenIdle(): void {
    if (this.#timer !== null || this.#unsaved.size === 0 || !this.#canSave || this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#saving ??= this.#saveAll(this.isIdle).finally(() => {
        this.#saving = null;
      });
    }, this.options.idleMs ?? DEFAULT_IDLE_MS);
    this.#timer.unref();
  }

  /** Saves what is left. The session is still there, and gets no more requests. */
  async close(): Promise<void> {
    this.#isClosed = true; // a step in flight may end later than this begins
    this.#stopTimer();
    await Promise.all([this.#saving, ...Array.from(this.#reading.values(), ({ done }) => done)]);
    const last = this.#wasUseful ? null : this.#nodeOfPrompt(this.#last);
    if (last !== null) this.#unsaved.add(last);
    await this.#saveAll(() => true);
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** A sequence starts with what the prefix cache had. */
  #look(sequence: Sequence): void {
    if (sequence.sampling === null) return;
    this.#last = sequence;
    const { node, numCachedBlocks, promptLength } = sequence;
    const { blockSize } = this.limits;
    if (node === null || numCachedBlocks * blockSize < MIN_TOKENS) return;
    const ends = numCachedBlocks === Math.floor((promptLength - 1) / blockSize);
    if (node.children.size === 0 && !ends) return;
    this.#wasUseful = true;
    this.#unsaved.delete(node);
    this.#unsaved.add(node);
    if (this.#unsaved.size > MAX_UNSAVED) this.#unsaved.delete(this.#unsaved.values().next().value!);
  }

  /** The node of a prompt's last whole block, if all of them are known and they are enough to be saved. */
  #nodeOfPrompt(sequence: Sequence | null): PrefixNode | null {
    if (sequence === null) return null;
    const numBlocks = Math.floor(sequence.promptLength / this.limits.blockSize);
    if (numBlocks * this.limits.blockSize < MIN_TOKENS) return null;
    return this.prefixCache.match(sequence).nodes[numBlocks - 1] ?? null;
  }

  #restore(sequence: Sequence, numSpare: number): void {
    if (this.#folder.size === 0 || sequence.everyRow) return;
    const maxBlocks = Math.floor((sequence.numTokens - 1) / this.limits.blockSize);
    const { nodes, announced } = this.prefixCache.match(sequence);
    if (announced !== null) return;
    const prompt = this.#folder.longest(
      sequence.scope,
      (i) => sequence.blockKey(i),
      maxBlocks,
      (saved, numCommon) => isWorthReading(saved, numCommon - nodes.length),
    );
    if (prompt === null) return;
    const reading = this.#reading.get(prompt) ?? this.#read(prompt, sequence.scope, numSpare);
    if (reading === null) return;
    reading.waiting.push(sequence);
    sequence.isRestoring = true;
  }

  /** Null if there are not enough blocks. */
  #read(prompt: SavedPrompt, scope: string, numSpare: number): Reading | null {
    const { pool } = this.prefixCache;
    const blocks = pool.numAvailable >= prompt.numBlocks + numSpare ? pool.allocate(prompt.numBlocks) : null;
    if (blocks === null) return null;
    const waiting: Sequence[] = [];
    const reading = { blocks, waiting, done: this.#fill(blocks, prompt, scope, waiting) };
    this.#reading.set(prompt, reading);
    return reading;
  }

  async #fill(blocks: readonly number[], prompt: SavedPrompt, scope: string, waiting: readonly Sequence[]) {
    try {
      await this.session.loadBlocks(prompt.path, Int32Array.from(blocks), prompt.label);
      const keys = Array.from(blocks, (_, i) => this.#folder.blockKey(prompt, i));
      this.prefixCache.enter(scope, keys, blocks);
      this.#wasUseful = true;
      void this.#folder.touch(prompt);
    } catch (error) {
      this.#folder.forget(prompt);
      if (error instanceof EngineError && error.code === 'PROMPT_CACHE_INVALID') this.options.warn(error);
    }
    // At once, so that whoever waits can go on as soon as nothing is being read any more.
    this.prefixCache.pool.release(blocks);
    this.#reading.delete(prompt);
    for (const sequence of waiting) sequence.isRestoring = false;
  }

  /** The longest first, which may make shorter ones unnecessary. */
  async #saveAll(mayGoOn: () => boolean): Promise<void> {
    const depth = (node: PrefixNode) => this.prefixCache.pathTo(node)?.nodes.length ?? 0;
    const nodes = [...this.#unsaved].sort((a, b) => depth(b) - depth(a));
    for (const node of nodes) {
      if (!this.#canSave || !mayGoOn()) return;
      await this.#save(node, mayGoOn);
    }
  }

  async #save(node: PrefixNode, mayGoOn: () => boolean): Promise<void> {
    const known = this.prefixCache.pathTo(node);
    const numBlocks = known?.nodes.length ?? 0;
    const fits = known !== null && (await this.#folder.makeRoom(numBlocks * this.options.blockBytes));
    if (!mayGoOn()) return; // its turn comes again
    this.#unsaved.delete(node);
    const path = fits ? this.prefixCache.pathTo(node) : null;
    if (path === null) return;
    const keys = path.nodes.map(({ key }) => key);
    const isThere = (saved: SavedPrompt, numCommon: number) =>
      numCommon === numBlocks && isWorthReading(saved, numBlocks);
    if (this.#folder.longest(path.scope, (i) => keys[i]!, numBlocks, isThere) !== null) return;
    const prompt = this.#folder.describe(path.scope, keys);
    const blocks = Int32Array.from(path.nodes, ({ block }) => block);
    try {
      // In order with the steps around it: the blocks may be given to others meanwhile.
      await this.session.saveBlocks(prompt.path, blocks, prompt.label);
    } catch (error) {
      this.#canSave = false;
      if (error instanceof EngineError) this.options.warn(error);
      return;
    }
    await this.#folder.add(prompt, (shorter) => isWorthReading(prompt, shorter.numBlocks));
    await this.#folder.makeRoom(0);
  }
}

/** Whether a file is worth reading if this many of its blocks are needed. */
function isWorthReading(prompt: SavedPrompt, numNeeded: number): boolean {
  return numNeeded > 0 && numNeeded * TOKENS_READ_PER_COMPUTED >= prompt.numBlocks;
}
