import { EngineError } from '../base/errors.js';
import { type DType, dtypeFromId, dtypes, isPacked, matrixBytes, rowMultiple } from '../tensor/dtype.js';
import { LINE } from '../tensor/packed.js';
import { ByteCursor } from './byte-cursor.js';
import type { ByteSource } from './byte-source.js';
import { type GgufValue, type ListBudget, MAX_LIST_ELEMENTS, readValue } from './gguf-value.js';
import type { TensorInfo } from './model-file.js';
import { isPlainName, refuseOverlaps } from './tensor-table.js';

/** Everything a GGUF file says before its first tensor byte. */
export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** Where each value lies in the file, its type included: values lose their type when they are read. */
  readonly metadataRanges: ReadonlyMap<string, ByteRange>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** Bytes, from the start of the file. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Caps on what a file may claim. Far above every published model, far below what hurts this process. */
export const ggufLimits = {
  headerBytes: 1 << 28,
  metadataKeys: 1 << 16,
  tensors: 1 << 16,
  /** Of one metadata key; from the specification. */
  keyBytes: 65_535,
  /** Of one tensor name; from the specification. */
  nameBytes: 64,
  dimensions: 4,
  alignment: 1 << 16,
  listElements: MAX_LIST_ELEMENTS,
} as const;

const MAGIC = 0x46554747; // "GGUF", read as little-endian
const DEFAULT_ALIGNMENT = 32;

/** Whether a file that starts with these bytes is GGUF. */
export function isGguf(start: Uint8Array): boolean {
  return start.length >= 4 && Buffer.from(start.buffer, start.byteOffset, 4).readUInt32LE(0) === MAGIC;
}

/**
 * Reads the header of a GGUF file, version 2 or 3, little-endian (ggml's docs/gguf.md). Tensor bytes are not read,
 * but every tensor is known to lie within the file, aligned, and apart from the others.
 *
 * Throws FORMAT_INVALID, FORMAT_LIMIT or DTYPE_UNSUPPORTED, naming the file, the field and the value.
 */
export function readGguf(source: ByteSource): GgufHeader {
  const cursor = new ByteCursor(source, ggufLimits.headerBytes);
  const version = readVersion(cursor);
  const numTensors = cursor.count('number of tensors', ggufLimits.tensors);
  const numKeys = cursor.count('number of metadata keys', ggufLimits.metadataKeys);
  if (numKeys === 0) throw cursor.invalid('number of metadata keys', 0, 'expected at least one');
  const metadataRanges = new Map<string, ByteRange>();
  const metadata = readMetadata(cursor, numKeys, metadataRanges);
  const alignment = readAlignment(cursor, metadata);
  checkVocabulary(cursor, metadata);
  const entries: TensorEntry[] = [];
  for (let i = 0; i < numTensors; i++) entries.push(readTensorEntry(cursor, i));
  const dataOffset = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = placeTensors(entries, source, cursor, dataOffset, alignment);
  return { version, metadata, metadataRanges, tensors };
}

function readVersion(cursor: ByteCursor): number {
  const magic = cursor.uint32();
  if (magic !== MAGIC) throw cursor.invalid('magic number', `0x${magic.toString(16)}`, 'expected "GGUF"');
  const version = cursor.uint32();
  if (version === 2 || version === 3) return version;
  // A small number in the other byte order has its low half empty.
  const swapped = version !== 0 && (version & 0xffff) === 0;
  throw cursor.invalid(
    'version',
    version,
    swapped ? 'so it is big-endian; only little-endian files can be read' : 'expected 2 or 3; convert the model again',
  );
}

function readMetadata(cursor: ByteCursor, numKeys: number, ranges: Map<string, ByteRange>): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  const budget: ListBudget = { elements: ggufLimits.listElements };
  for (let i = 0; i < numKeys; i++) {
    cursor.field = `metadata key ${i}`;
    const key = cursor.text(ggufLimits.keyBytes);
    if (!isPlainName(key)) throw cursor.invalid('', key, 'expected printable UTF-8 text');
    if (metadata.has(key)) throw cursor.invalid('', key, 'which is there already');
    cursor.field = key;
    const start = cursor.position;
    metadata.set(key, readValue(cursor, budget));
    ranges.set(key, { start, end: cursor.position });
  }
  cursor.field = 'header';
  return metadata;
}

function readAlignment(cursor: ByteCursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof value === 'number' && value > ggufLimits.alignment) {
    throw cursor.overLimit('general.alignment', value, ggufLimits.alignment);
  }
  // The specification asks for a multiple of 8, every writer and reader for a power of two.
  if (typeof value !== 'number' || !(value >= 8) || !Number.isInteger(Math.log2(value))) {
    throw cursor.invalid('general.alignment', value, 'expected a power of two of at least 8');
  }
  return value;
}

/** Scores and types go by token id: shorter lists have been read past their end elsewhere (CVE-2025-49847). */
function checkVocabulary(cursor: ByteCursor, metadata: ReadonlyMap<string, GgufValue>): void {
  const length = (key: string) => (metadata.get(`tokenizer.ggml.${key}`) as ArrayLike<unknown> | undefined)?.length;
  const numTokens = length('tokens');
  for (const key of ['scores', 'token_type']) {
    const count = length(key);
    if (numTokens === undefined || count === undefined || count === numTokens) continue;
    throw cursor.invalid(`tokenizer.ggml.${key} length`, count, `expected one for each of the ${numTokens} tokens`);
  }
}

/** A tensor as the header has it. */
interface TensorEntry {
  readonly name: string;
  /** Innermost first. */
  readonly dimensions: readonly number[];
  readonly typeId: number;
  /** From the start of the tensor data. */
  readonly offset: number;
}

function readTensorEntry(cursor: ByteCursor, index: number): TensorEntry {
  cursor.field = `tensor ${index} name`;
  const name = cursor.text(ggufLimits.nameBytes);
  if (!isPlainName(name)) throw cursor.invalid('', name, 'expected printable UTF-8 text');
  cursor.field = `tensor ${name}`;
  const numDimensions = cursor.uint32();
  if (numDimensions < 1) throw cursor.invalid('number of dimensions', numDimensions, 'expected at least 1');
  if (numDimensions > ggufLimits.dimensions) {
    throw cursor.overLimit('number of dimensions', numDimensions, ggufLimits.dimensions);
  }
  const dimensions: number[] = [];
  let elements = 1;
  for (let d = 0; d < numDimensions; d++) {
    const dimension = cursor.count(`dimension ${d}`, Number.MAX_SAFE_INTEGER);
    if (dimension === 0) throw cursor.invalid(`dimension ${d}`, 0, 'expected at least 1');
    elements *= dimension;
    dimensions.push(dimension);
  }
  if (!Number.isSafeInteger(elements)) {
    throw cursor.overLimit('number of elements', dimensions.join(' x '), Number.MAX_SAFE_INTEGER);
  }
  return { name, dimensions, typeId: cursor.uint32(), offset: cursor.count('offset', Number.MAX_SAFE_INTEGER) };
}

function placeTensors(
  entries: readonly TensorEntry[],
  source: ByteSource,
  cursor: ByteCursor,
  dataOffset: number,
  alignment: number,
): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  for (const { name, dimensions, typeId, offset } of entries) {
    cursor.field = `tensor ${name}`;
    if (tensors.has(name)) throw cursor.invalid('name', name, 'which is there already');
    const dtype = dtypeFromId(typeId);
    if (dtype === null) throw unsupportedType(cursor, name, typeId);
    const columns = dimensions[0] as number;
    const rows = dimensions.slice(1).reduce((product, dimension) => product * dimension, 1);
    const byteLength = matrixBytes(dtype, rows, columns);
    if (byteLength === null) {
      throw cursor.invalid('row length', columns, `expected a multiple of ${rowMultiple(dtype)}, a block of ${dtype}`);
    }
    if (isPacked(dtype)) checkPacked(cursor, dtype, dimensions, dataOffset + offset);
    const room = source.size - dataOffset;
    if (offset % alignment !== 0) throw cursor.invalid('offset', offset, `expected a multiple of ${alignment}`);
    // Both sides are safe integers or larger floats, so neither sum nor comparison can wrap around.
    if (offset + byteLength > room) {
      const problem = `but with ${byteLength} bytes from ${offset} on it ends past the ${Math.max(0, room)} bytes of data`;
      throw cursor.invalid('size', byteLength, problem);
    }
    const shape = dimensions.toReversed();
    tensors.set(name, { name, dtype, shape, file: source.path, offset: dataOffset + offset, byteLength });
  }
  refuseOverlaps(source.path, [...tensors.values()]);
  return tensors;
}

/** Own types are read where they lie, in whole cache lines of a matrix. */
function checkPacked(cursor: ByteCursor, dtype: DType, dimensions: readonly number[], position: number): void {
  if (dimensions.length !== 2) {
    throw cursor.invalid('number of dimensions', dimensions.length, `expected 2, for ${dtype} stores matrices`);
  }
  if (position % LINE !== 0) {
    throw cursor.invalid('position in the file', position, `expected a multiple of ${LINE} for ${dtype}`);
  }
}

/** Types that ggml has, or had, and this engine has not. */
const ggmlTypes: Readonly<Record<number, string>> = {
  4: 'q4_2',
  5: 'q4_3',
  9: 'q8_1',
  15: 'q8_k',
  16: 'iq2_xxs',
  17: 'iq2_xs',
  18: 'iq3_xxs',
  19: 'iq1_s',
  22: 'iq2_s',
  24: 'i8',
  25: 'i16',
  26: 'i32',
  27: 'i64',
  28: 'f64',
  29: 'iq1_m',
  31: 'q4_0_4_4',
  32: 'q4_0_4_8',
  33: 'q4_0_8_8',
  34: 'tq1_0',
  36: 'iq4_nl_4_4',
  37: 'iq4_nl_4_8',
  38: 'iq4_nl_8_8',
  39: 'mxfp4',
  40: 'nvfp4',
  41: 'q1_0',
  42: 'q2_0',
};

function unsupportedType(cursor: ByteCursor, tensor: string, typeId: number): EngineError {
  const dtype = ggmlTypes[typeId];
  if (dtype === undefined) return cursor.invalid('type', typeId, 'which is no type of ggml');
  return new EngineError('DTYPE_UNSUPPORTED', { tensor, dtype, supported: Object.keys(dtypes).join(', ') });
}
