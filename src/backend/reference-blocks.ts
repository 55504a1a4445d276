import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { EngineError, invariant } from '../base/errors.js';
import type { SessionLimits } from './backend.js';
import { checkBlocks, checkLabel } from './check-batch.js';
import type { ReferenceKv } from './reference-attention.js';
import { encodeCrc, encodeHead, openSavedBlocks } from './saved-blocks.js';

/** Whole blocks of the reference's keys and values, in all layers: copied, and written to and read from files. */
export class ReferenceBlocks {
  readonly #kv: readonly ReferenceKv[];
  readonly #limits: SessionLimits;

  constructor(kv: readonly ReferenceKv[], limits: SessionLimits) {
    this.#kv = kv;
    this.#limits = limits;
  }

  /** pairs [numPairs, 2]: from, to; one pair after another. */
  copy(pairs: Int32Array): void {
    invariant(pairs.length % 2 === 0, 'half a pair of blocks to copy');
    checkBlocks(pairs, this.#limits, 2 * this.#limits.numBlocks);
    for (let i = 0; i < pairs.length; i += 2) {
      const to = this.#rowsOf(pairs[i + 1]!);
      this.#rowsOf(pairs[i]!).forEach((rows, part) => {
        to[part]!.set(rows);
      });
    }
  }

  /** Throws FILE_UNWRITABLE. */
  save(path: string, blocks: Int32Array, label: Uint8Array): void {
    const head = this.#encodeHead(blocks, label);
    const temporary = `${path}.partial-${randomBytes(6).toString('hex')}`;
    try {
      const file = openSync(temporary, 'wx', 0o600);
      try {
        let crc = 0;
        for (const bytes of [head, ...[...blocks].flatMap((block) => this.#rowsOf(block).map(bytesOf))]) {
          writeAll(file, bytes);
          crc = crc32(bytes, crc);
        }
        writeAll(file, encodeCrc(crc));
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
    } catch (cause) {
      rmSync(temporary, { force: true });
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new EngineError('FILE_UNWRITABLE', { path, reason }, { cause });
    }
  }

  /** Throws FILE_UNREADABLE, PROMPT_CACHE_INVALID. */
  load(path: string, blocks: Int32Array, label: Uint8Array): void {
    const expected = this.#encodeHead(blocks, label);
    const file = openSavedBlocks(path);
    try {
      const { head, bytes } = file.readHead();
      if (head.numBlocks !== blocks.length) throw file.invalid('it has another number of blocks');
      if (Buffer.compare(head.label, label) !== 0) throw file.invalid('it has another label');
      if (Buffer.compare(bytes, expected) !== 0) {
        throw file.invalid('its blocks are of another backend, model, type or size');
      }
      let crc = crc32(bytes);
      for (const block of blocks) {
        for (const rows of this.#rowsOf(block)) {
          const read = file.read(rows.byteLength);
          crc = crc32(read, crc);
          rows.set(new Float32Array(read.buffer));
        }
      }
      if (Buffer.compare(file.read(4), encodeCrc(crc)) !== 0) throw file.invalid('its checksum is wrong');
    } finally {
      file.close();
    }
  }

  #encodeHead(blocks: Int32Array, label: Uint8Array): Uint8Array {
    checkBlocks(blocks, this.#limits, this.#limits.numBlocks);
    checkLabel(label);
    const floats = this.#kv.reduce((sum, { numKvHeads, headDim }) => sum + 2 * numKvHeads * headDim, 0);
    const blockBytes = floats * this.#limits.blockSize * Float32Array.BYTES_PER_ELEMENT;
    return encodeHead({ label, numBlocks: blocks.length, blockBytes }, 'reference', this.#limits, this.#kv);
  }

  /** Each layer's keys, then its values, of one block: [blockSize, numKvHeads, headDim]. */
  #rowsOf(block: number): Float32Array[] {
    return this.#kv.flatMap(({ keys, values, numKvHeads, headDim }) => {
      const floats = this.#limits.blockSize * numKvHeads * headDim;
      return [keys, values].map((rows) => rows.subarray(block * floats, (block + 1) * floats));
    });
  }
}

function bytesOf(rows: Float32Array): Uint8Array {
  return new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}
