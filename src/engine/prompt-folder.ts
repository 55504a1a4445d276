import { createHash } from 'node:crypto';
import { accessSync, constants, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { readdir, rm, stat, utimes } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { readSavedBlocksHead } from '../backend/saved-blocks.js';
import { EngineError } from '../base/errors.js';

/** The beginning of a prompt whose keys and values are in a file. */
export interface SavedPrompt {
  readonly path: string;
  /** What the file says of itself: the model's fingerprint, the scope's hash, the tokens. */
  readonly label: Uint8Array;
  /** Two UTF-16 units a token, as in Sequence.blockKey; whole blocks. */
  readonly text: string;
  readonly numBlocks: number;
}

export interface PromptFolderOptions {
  /** Absolute path of a folder that preparePromptFolder has made. */
  readonly directory: string;
  /** Most bytes of all its files together. */
  readonly maxBytes: number;
  /** [32] stands for everything besides the tokens that decides what their keys and values are. */
  readonly fingerprint: Uint8Array;
  /** Told of damaged files, each once, and when saving has to be given up. */
  readonly warn: (error: EngineError) => void;
}

/** Nothing of a request becomes part of a path: a file is named by the hash of its label. */
const NAME = /^[0-9a-f]{64}\.kv$/;
/** What a process that ended while it wrote has left. */
const PARTIAL_NAME = /^[0-9a-f]{64}\.kv\.partial-/;
/** Milliseconds; nobody writes one file for so long. */
const PARTIAL_AGE = 3_600_000;
const MAX_FILES = 1024;
/** Bytes of all labels that are read: 16 million tokens. */
const MAX_LABELS = 64 * 2 ** 20;
const HASH_BYTES = 32;
/** UTF-16 units a token, and bytes. */
const TOKEN_UNITS = 2;
const TOKEN_BYTES = 4;

/** Makes a folder for saved prompts, for its owner only, and returns its absolute path. Throws FILE_UNWRITABLE. */
export function preparePromptFolder(directory: string): string {
  const path = resolve(directory);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new EngineError('FILE_UNWRITABLE', { path, reason }, { cause });
  }
  return path;
}

/**
 * A folder of saved prompts and what is known of it. Several processes and models may share one: a file is written under
 * another name until it is whole, one with the same label has the same content, and one that is gone is just not used.
 * The time of a file's last use is its time of modification.
 */
export class PromptFolder {
  /** Those of this model, by path. */
  readonly #prompts = new Map<string, SavedPrompt>();

  constructor(
    readonly options: PromptFolderOptions,
    /** Tokens. */
    readonly blockSize: number,
    /** Blocks of the KV cache: longer prompts cannot be loaded. */
    readonly maxBlocks: number,
  ) {
    try {
      this.#read();
    } catch {
      // The folder is gone, or no longer ours to read: nothing is saved in it.
    }
  }

  get size(): number {
    return this.#prompts.size;
  }

  /**
   * Of the prompts in this scope that are `wanted`, the one that has most blocks in common with the first `maxBlocks` of
   * `blockKey`; of several the shortest.
   */
  longest(
    scope: string,
    blockKey: (i: number) => string,
    maxBlocks: number,
    wanted: (prompt: SavedPrompt, numCommon: number) => boolean,
  ): SavedPrompt | null {
    const scopeHash = sha256(scope);
    let best: SavedPrompt | null = null;
    let mostCommon = 0;
    for (const prompt of this.#prompts.values()) {
      if (!scopeHash.equals(prompt.label.subarray(HASH_BYTES, 2 * HASH_BYTES))) continue;
      const most = Math.min(prompt.numBlocks, maxBlocks);
      let numCommon = 0;
      while (numCommon < most && prompt.text.startsWith(blockKey(numCommon), numCommon * this.#blockUnits)) numCommon++;
      const better = numCommon - mostCommon || (best?.numBlocks ?? 0) - prompt.numBlocks;
      if (better <= 0 || !wanted(prompt, numCommon)) continue;
      best = prompt;
      mostCommon = numCommon;
    }
    return best;
  }

  /** Tokens of block i of a saved prompt, as in Sequence.blockKey. */
  blockKey(prompt: SavedPrompt, i: number): string {
    return prompt.text.slice(i * this.#blockUnits, (i + 1) * this.#blockUnits);
  }

  /** The file for a beginning of a prompt, which may not be there yet. */
  describe(scope: string, blockKeys: readonly string[]): SavedPrompt {
    const text = blockKeys.join('');
    const label = Buffer.concat([this.options.fingerprint, sha256(scope), Buffer.from(text, 'utf16le')]);
    return { path: this.#pathOf(label), label, text, numBlocks: blockKeys.length };
  }

  /** It has been written. Files of its own beginnings for which `replaces` holds are removed. */
  async add(prompt: SavedPrompt, replaces: (shorter: SavedPrompt) => boolean): Promise<void> {
    this.#prompts.set(prompt.path, prompt);
    const scopeEnd = 2 * HASH_BYTES;
    for (const other of [...this.#prompts.values()]) {
      const isBeginning = other !== prompt && prompt.text.startsWith(other.text);
      if (!isBeginning || Buffer.compare(other.label.subarray(0, scopeEnd), prompt.label.subarray(0, scopeEnd)) !== 0) {
        continue;
      }
      if (replaces(other)) await this.#remove(other.path);
    }
  }

  /** It cannot be used. The file stays, until its space is needed or it is written again. */
  forget(prompt: SavedPrompt): void {
    this.#prompts.delete(prompt.path);
  }

  /** It has been used just now. */
  async touch({ path }: SavedPrompt): Promise<void> {
    const now = new Date();
    await utimes(path, now, now).catch(() => undefined); // another process may have removed it
  }

  /** Removes files, the least recently used first, until `bytes` more fit in; false if they never can. */
  async makeRoom(bytes: number): Promise<boolean> {
    const { directory, maxBytes } = this.options;
    if (bytes > maxBytes) return false;
    const names = await readdir(directory).catch(() => []);
    const files: { path: string; size: number; mtimeMs: number }[] = [];
    for (const name of names.filter((each) => NAME.test(each))) {
      const path = join(directory, name);
      const stats = await stat(path).catch(() => null);
      if (stats !== null) files.push({ path, size: stats.size, mtimeMs: stats.mtimeMs });
    }
    let free = files.reduce((left, { size }) => left - size, maxBytes - bytes);
    for (const { path, size } of files.sort((a, b) => a.mtimeMs - b.mtimeMs)) {
      if (free >= 0) break;
      await this.#remove(path);
      free += size;
    }
    return true;
  }

  get #blockUnits(): number {
    return this.blockSize * TOKEN_UNITS;
  }

  #pathOf(label: Uint8Array): string {
    return join(this.options.directory, `${sha256(label).toString('hex')}.kv`);
  }

  async #remove(path: string): Promise<void> {
    this.#prompts.delete(path);
    await rm(path, { force: true }).catch(() => undefined);
  }

  #read(): void {
    const { directory } = this.options;
    let labelBytes = 0;
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (PARTIAL_NAME.test(name)) removeIfOld(path);
      if (!NAME.test(name) || !isOwnFile(path)) continue;
      if (this.#prompts.size >= MAX_FILES || labelBytes > MAX_LABELS) return;
      try {
        const { label, numBlocks } = readSavedBlocksHead(path);
        labelBytes += label.length;
        const prompt = this.#promptOf(path, label, numBlocks);
        if (prompt !== null) this.#prompts.set(path, prompt);
      } catch (error) {
        if (error instanceof EngineError && error.code === 'PROMPT_CACHE_INVALID') this.options.warn(error);
      }
    }
  }

  /** Null if it is of another model, or too long. Throws PROMPT_CACHE_INVALID. */
  #promptOf(path: string, label: Uint8Array, numBlocks: number): SavedPrompt | null {
    if (Buffer.compare(label.subarray(0, HASH_BYTES), this.options.fingerprint) !== 0) return null;
    const tokens = label.subarray(2 * HASH_BYTES);
    const isWhole = tokens.length === numBlocks * this.blockSize * TOKEN_BYTES;
    if (!isWhole || this.#pathOf(label) !== path) {
      throw new EngineError('PROMPT_CACHE_INVALID', { path, problem: 'its label is not what its name stands for' });
    }
    if (numBlocks === 0 || numBlocks > this.maxBlocks) return null;
    return { path, label, text: Buffer.from(tokens).toString('utf16le'), numBlocks };
  }
}

function sha256(data: string | Uint8Array): Buffer {
  return createHash('sha256').update(data).digest();
}

/** A regular file of this process' user. In a folder that others may write to, nothing of theirs is believed. */
function isOwnFile(path: string): boolean {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isFile() === true && (process.getuid === undefined || stats.uid === process.getuid());
}

function removeIfOld(path: string): void {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() && Date.now() - stats.mtimeMs > PARTIAL_AGE) rmSync(path, { force: true });
}
