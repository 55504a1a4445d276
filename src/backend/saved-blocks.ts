import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { endianness } from 'node:os';
import { crc32 } from 'node:zlib';
import { EngineError } from '../base/errors.js';
import type { SessionLimits } from './backend.js';
import { kvDtypes } from './kv-dtype.js';
import type { KvLayer } from './plan.js';

/**
 * A file of saved blocks. Numbers are in the writer's order of bytes, which nobody else's blocks can be read in anyway:
 *
 *     0  "ENGINEKV"
 *     8  uint32  0x01020304, the order of bytes
 *     12 uint32  version
 *     16 uint32  who lays the blocks out: SavedLayout
 *     20 uint32  KV dtype, its place in kvDtypes
 *     24 uint32  tokens per block
 *     28 uint32  number of layers
 *     32 uint32  bytes of the label
 *     36 uint32  number of blocks
 *     40 uint64  bytes per block, all layers together
 *     48 per layer: uint32 KV heads, uint32 head dimension
 *     …  the label
 *     …  uint32  CRC-32 (zlib's) of the head, which is all of the above
 *     …  the blocks, per layer the keys, then the values
 *     …  uint32  CRC-32 of all of the above
 */
export interface SavedBlocksHead {
  readonly label: Uint8Array;
  readonly numBlocks: number;
  /** Of each, in all layers. */
  readonly blockBytes: number;
}

/** Blocks of one kind are of no use to the other: the reference keeps float32 rows, kernels panels of 16 positions. */
export const savedLayouts = ['reference', 'native'] as const;
export type SavedLayout = (typeof savedLayouts)[number];

const MAGIC = 0x454e47494e454b56n; // ENGINEKV
const BYTE_ORDER = 0x01020304;
const VERSION = 1;
const LITTLE = endianness() === 'LE';

/** Bytes before the layers. */
const FIXED_BYTES = 48;
const CRC_BYTES = 4;
const MAX_LAYERS = 2 ** 16;
export const MAX_LABEL_BYTES = 16 * 2 ** 20;

/** The head of a file, its checksum included. */
export function encodeHead(
  { label, numBlocks, blockBytes }: SavedBlocksHead,
  layout: SavedLayout,
  { kvDtype, blockSize }: SessionLimits,
  layers: readonly KvLayer[],
): Uint8Array {
  const labelAt = FIXED_BYTES + 8 * layers.length;
  const head = new Uint8Array(labelAt + label.length + CRC_BYTES);
  const view = new DataView(head.buffer);
  view.setBigUint64(0, MAGIC);
  const words = [BYTE_ORDER, VERSION, savedLayouts.indexOf(layout), kvDtypes.indexOf(kvDtype), blockSize];
  words.push(layers.length, label.length, numBlocks);
  words.forEach((word, i) => {
    view.setUint32(8 + 4 * i, word, LITTLE);
  });
  view.setBigUint64(40, BigInt(blockBytes), LITTLE);
  layers.forEach(({ numKvHeads, headDim }, i) => {
    view.setUint32(FIXED_BYTES + 8 * i, numKvHeads, LITTLE);
    view.setUint32(FIXED_BYTES + 8 * i + 4, headDim, LITTLE);
  });
  head.set(label, labelAt);
  view.setUint32(head.length - CRC_BYTES, crc32(head.subarray(0, -CRC_BYTES)), LITTLE);
  return head;
}

/**
 * The head of a file that `saveBlocks` wrote, for who looks for saved prompts: whether its blocks are whole only
 * `loadBlocks` finds out. Throws FILE_UNREADABLE, PROMPT_CACHE_INVALID.
 */
export function readSavedBlocksHead(path: string): SavedBlocksHead {
  const file = openSavedBlocks(path);
  try {
    return file.readHead().head;
  } finally {
    file.close();
  }
}

/** Throws FILE_UNREADABLE. */
export function openSavedBlocks(path: string): SavedBlocksFile {
  return new SavedBlocksFile(path);
}

/** A file that is read from its beginning to its end. */
class SavedBlocksFile {
  readonly #path: string;
  readonly #file: number;
  /** Bytes. */
  readonly #size: number;
  #position = 0;

  constructor(path: string) {
    this.#path = path;
    // Opening a pipe would otherwise wait for its other end.
    this.#file = this.#try(() => openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)));
    const stats = this.#try(() => fstatSync(this.#file));
    this.#size = stats.size;
    if (stats.isFile()) return;
    this.close();
    throw new EngineError('FILE_UNREADABLE', { path, reason: 'it is no regular file' });
  }

  /** The head, and its bytes. No size in it is believed before it is compared with its limit and the file's size. */
  readHead(): { head: SavedBlocksHead; bytes: Uint8Array } {
    if (this.#size < FIXED_BYTES) throw this.invalid('it is no file of saved blocks');
    const fixed = new DataView(this.read(FIXED_BYTES).buffer);
    if (fixed.getBigUint64(0) !== MAGIC) throw this.invalid('it is no file of saved blocks');
    const word = (at: number): number => fixed.getUint32(at, LITTLE);
    if (word(8) !== BYTE_ORDER) throw this.invalid('it was written on a machine with another order of bytes');
    if (word(12) !== VERSION) throw this.invalid('it is of another version of the format');
    const [numLayers, labelBytes, numBlocks] = [word(28), word(32), word(36)];
    const blockBytes = fixed.getBigUint64(40, LITTLE);
    if (numLayers > MAX_LAYERS || labelBytes > MAX_LABEL_BYTES) throw this.invalid('its head is damaged');
    const labelAt = FIXED_BYTES + 8 * numLayers;
    const headBytes = labelAt + labelBytes + CRC_BYTES;
    if (BigInt(this.#size) !== BigInt(headBytes + CRC_BYTES) + BigInt(numBlocks) * blockBytes) {
      throw this.invalid('it is cut off, or longer than it should be');
    }
    const bytes = new Uint8Array(headBytes);
    bytes.set(new Uint8Array(fixed.buffer));
    bytes.set(this.read(headBytes - FIXED_BYTES), FIXED_BYTES);
    const stored = new DataView(bytes.buffer).getUint32(headBytes - CRC_BYTES, LITTLE);
    if (stored !== crc32(bytes.subarray(0, -CRC_BYTES))) throw this.invalid('its head is damaged');
    const label = bytes.subarray(labelAt, labelAt + labelBytes);
    return { head: { label, numBlocks, blockBytes: Number(blockBytes) }, bytes };
  }

  read(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      const count = this.#try(() => readSync(this.#file, bytes, at, length - at, this.#position + at));
      if (count === 0) throw this.invalid('it is cut off');
      at += count;
    }
    this.#position += length;
    return bytes;
  }

  invalid(problem: string): EngineError {
    return new EngineError('PROMPT_CACHE_INVALID', { path: this.#path, problem });
  }

  close(): void {
    closeSync(this.#file);
  }

  #try<T>(use: () => T): T {
    try {
      return use();
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new EngineError('FILE_UNREADABLE', { path: this.#path, reason }, { cause });
    }
  }
}

export type { SavedBlocksFile };

/** A CRC-32 at the end of a file, as its bytes. */
export function encodeCrc(crc: number): Uint8Array {
  const bytes = new Uint8Array(CRC_BYTES);
  new DataView(bytes.buffer).setUint32(0, crc, LITTLE);
  return bytes;
}
