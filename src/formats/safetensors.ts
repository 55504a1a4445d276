import { EngineError } from '../base/errors.js';
import type { DType } from '../tensor/dtype.js';
import type { ByteSource } from './byte-source.js';
import { isObject, type JsonObject, type JsonValue, parseJsonObject } from './json.js';
import type { TensorInfo } from './model-file.js';
import { readPackedShapes } from './safetensors-packed.js';
import { isPlainName } from './tensor-table.js';

/** The header of one safetensors file. */
export interface SafetensorsHeader {
  /** Free text of the file's writer, e.g. `format: 'pt'`. */
  readonly metadata: JsonObject;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Tensors of types the engine cannot compute with, by name: their type. Models carry such buffers unused. */
  readonly unsupported: ReadonlyMap<string, string>;
}

/** Caps on what a file may claim; the header's is the specification's. */
export const safetensorsLimits = {
  headerBytes: 100_000_000,
  tensors: 1 << 16,
  nameLength: 1024,
  dimensions: 8,
} as const;

/** Bits of one element of each type of the format. */
const elementBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

const supported: Readonly<Record<string, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Bytes before the JSON: its length. */
const PREFIX_BYTES = 8;

/** Whether a file that starts with these bytes (16 are enough) can be safetensors: a length, then an object. */
export function isSafetensors(start: Uint8Array): boolean {
  return start.length > PREFIX_BYTES && start[PREFIX_BYTES] === 0x7b && start[6] === 0 && start[7] === 0;
}

/**
 * Reads the header of a safetensors file (the format's README). Tensor bytes are not read, but the tensors are known
 * to fill the rest of the file exactly, without gaps and overlaps. Matrices in the engine's own types are those that the
 * metadata name (safetensors-packed.ts).
 *
 * Throws FORMAT_INVALID or FORMAT_LIMIT, naming the file, the field and the value. Tensors of unsupported types are no
 * error here; `requireTensor` reports them when they are needed.
 */
export function readSafetensors(source: ByteSource): SafetensorsHeader {
  const { headerBytes, json } = readJson(source);
  const metadata = json.__metadata__ ?? {};
  if (!isObject(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) {
    throw invalid(source, '__metadata__', metadata, 'expected an object of strings');
  }
  const names = Object.keys(json).filter((name) => name !== '__metadata__');
  if (names.length > safetensorsLimits.tensors) {
    throw limit(source, 'number of tensors', names.length, safetensorsLimits.tensors);
  }
  const dataOffset = PREFIX_BYTES + headerBytes;
  const spans = names.map((name) => readEntry(source, name, json[name] as JsonValue, source.size - dataOffset));
  refuseGaps(source, spans, source.size - dataOffset);

  const tensors = new Map<string, TensorInfo>();
  const unsupported = new Map<string, string>();
  const stored = spans.map(({ begin, end, ...span }) => {
    return { ...span, offset: dataOffset + begin, byteLength: end - begin };
  });
  const packed = readPackedShapes(source.path, metadata, stored);
  for (const { name, type, shape, offset, byteLength } of stored) {
    const own = packed.get(name);
    const dtype = own?.dtype ?? supported[type];
    if (dtype === undefined) unsupported.set(name, type);
    else tensors.set(name, { name, dtype, shape: own?.shape ?? shape, file: source.path, offset, byteLength });
  }
  return { metadata, tensors, unsupported };
}

function readJson(source: ByteSource): { headerBytes: number; json: JsonObject } {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  source.read(prefix, 0);
  const length = prefix.readBigUInt64LE(0);
  if (length > safetensorsLimits.headerBytes) {
    throw limit(source, 'header length', length, safetensorsLimits.headerBytes);
  }
  const headerBytes = Number(length);
  const room = source.size - PREFIX_BYTES;
  if (headerBytes > room) {
    throw invalid(source, 'header length', headerBytes, `but only ${room} bytes follow`);
  }
  const bytes = new Uint8Array(headerBytes);
  source.read(bytes, PREFIX_BYTES);
  if (bytes[0] !== 0x7b) throw invalid(source, 'first byte of the header', bytes[0], 'expected 123, a {');
  return { headerBytes, json: parseJsonObject(source.path, bytes) };
}

/** One tensor as the header has it, its size known to agree with its shape. */
interface Span {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  /** First byte, from the end of the header. */
  readonly begin: number;
  /** First byte after it. */
  readonly end: number;
}

function readEntry(source: ByteSource, name: string, entry: JsonValue, room: number): Span {
  const { nameLength, dimensions } = safetensorsLimits;
  if (name.length > nameLength) throw limit(source, 'length of a tensor name', name.length, nameLength);
  if (!isPlainName(name)) throw invalid(source, 'tensor name', name, 'expected printable text');
  if (!isObject(entry)) throw invalid(source, `tensor ${name}`, entry, 'expected an object');
  const type = entry.dtype;
  const bits = typeof type === 'string' && Object.hasOwn(elementBits, type) ? elementBits[type] : undefined;
  if (bits === undefined) throw invalid(source, `tensor ${name} dtype`, type, 'which is no type of safetensors');

  const shape = readWholeNumbers(source, `tensor ${name} shape`, entry.shape);
  if (shape.length > dimensions) throw limit(source, `tensor ${name} number of dimensions`, shape.length, dimensions);
  const [begin, end, ...rest] = readWholeNumbers(source, `tensor ${name} data_offsets`, entry.data_offsets);
  if (begin === undefined || end === undefined || rest.length > 0 || begin > end || end > room) {
    const problem = `expected a begin and an end within the ${room} bytes of data`;
    throw invalid(source, `tensor ${name} data_offsets`, `[${[begin, end, ...rest].slice(0, 4).join(', ')}]`, problem);
  }
  // The product may leave the safe integers, and then it is larger than any file: floats round, they do not wrap.
  const byteLength = (shape.reduce((product, dimension) => product * dimension, 1) * bits) / 8;
  if (byteLength !== end - begin) {
    const problem = `but ${type} of shape [${shape.join(', ')}] has ${byteLength}`;
    throw invalid(source, `tensor ${name} size in bytes`, end - begin, problem);
  }
  return { name, type: type as string, shape, begin, end };
}

function readWholeNumbers(source: ByteSource, field: string, value: JsonValue | undefined): readonly number[] {
  if (!Array.isArray(value)) throw invalid(source, field, value, 'expected a list');
  for (const [i, item] of value.entries()) {
    if (typeof item === 'number' && Number.isSafeInteger(item) && item >= 0) continue;
    throw invalid(source, `${field}[${i}]`, item, 'expected a whole number of at least 0');
  }
  return value;
}

/** The format leaves no byte without a tensor, so that nothing can hide in a file. */
function refuseGaps(source: ByteSource, spans: readonly Span[], room: number): void {
  let end = 0;
  for (const span of spans.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (span.begin !== end) {
      const problem = `expected ${end}, where the tensor before it ends`;
      throw invalid(source, `tensor ${span.name} data_offsets[0]`, span.begin, problem);
    }
    end = span.end;
  }
  if (end !== room) throw invalid(source, 'end of the last tensor', end, `but the file has ${room} bytes of data`);
}

function invalid(source: ByteSource, field: string, value: unknown, problem: string): EngineError {
  return new EngineError('FORMAT_INVALID', { path: source.path, field, value, problem });
}

function limit(source: ByteSource, field: string, value: unknown, limit: number): EngineError {
  return new EngineError('FORMAT_LIMIT', { path: source.path, field, value, limit });
}
