import { invariant } from '../base/errors.js';

type NumberType = 'uint8' | 'int8' | 'uint16' | 'int16' | 'uint32' | 'int32' | 'float32' | 'float64';
type ScalarType = NumberType | 'uint64' | 'int64' | 'bool' | 'string';

/** A list of metadata, with the type of its elements. */
export type GgufListToWrite =
  | { readonly type: 'array'; readonly of: NumberType; readonly value: ArrayLike<number> }
  | { readonly type: 'array'; readonly of: 'uint64' | 'int64'; readonly value: ArrayLike<number | bigint> }
  | { readonly type: 'array'; readonly of: 'bool'; readonly value: ArrayLike<boolean> }
  | { readonly type: 'array'; readonly of: 'string'; readonly value: ArrayLike<string> }
  | { readonly type: 'array'; readonly of: 'array'; readonly value: ArrayLike<GgufListToWrite> };

/** A metadata value with its type in the file; `encoded` is a type and a value as another GGUF file has them. */
export type GgufValueToWrite =
  | { readonly type: NumberType; readonly value: number }
  | { readonly type: 'uint64' | 'int64'; readonly value: number | bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | GgufListToWrite
  | { readonly type: 'encoded'; readonly bytes: Uint8Array };

type Scalar = number | bigint | boolean | string;

interface TypeRow {
  /** The specification's id. */
  readonly id: number;
  readonly write: (writer: ByteWriter, value: Scalar) => void;
}

/** A type of numbers: how many bytes, how a view writes one, and which values it can hold. */
function numeric(
  id: number,
  bytes: number,
  write: (buffer: Buffer, value: number, at: number) => void,
  fits: (value: number) => boolean,
): TypeRow {
  return {
    id,
    write: (writer, value) => {
      const number = Number(value);
      invariant(fits(number), `${value} is no value of GGUF's type ${id}`);
      const at = writer.reserve(bytes);
      write(writer.buffer, number, at);
    },
  };
}

function integer(id: number, bytes: number, signed: boolean, write: (b: Buffer, v: number, at: number) => void) {
  const lowest = signed ? -(2 ** (8 * bytes - 1)) : 0;
  const values = 2 ** (8 * bytes);
  return numeric(id, bytes, write, (v) => Number.isInteger(v) && v >= lowest && v < lowest + values);
}

/** Value types by name; 9 is a list (ggml's docs/gguf.md). */
const types: Readonly<Record<ScalarType, TypeRow>> = {
  uint8: integer(0, 1, false, (b, v, at) => b.writeUInt8(v, at)),
  int8: integer(1, 1, true, (b, v, at) => b.writeInt8(v, at)),
  uint16: integer(2, 2, false, (b, v, at) => b.writeUInt16LE(v, at)),
  int16: integer(3, 2, true, (b, v, at) => b.writeInt16LE(v, at)),
  uint32: integer(4, 4, false, (b, v, at) => b.writeUInt32LE(v, at)),
  int32: integer(5, 4, true, (b, v, at) => b.writeInt32LE(v, at)),
  float32: numeric(
    6,
    4,
    (b, v, at) => b.writeFloatLE(v, at),
    () => true,
  ),
  bool: { id: 7, write: (writer, value) => types.uint8.write(writer, value ? 1 : 0) },
  string: { id: 8, write: (writer, value) => writer.text(String(value)) },
  uint64: { id: 10, write: (writer, value) => writer.uint64(BigInt(value as number | bigint)) },
  int64: {
    id: 11,
    write: (writer, value) => {
      const at = writer.reserve(8);
      writer.buffer.writeBigInt64LE(BigInt(value as number | bigint), at);
    },
  },
  float64: numeric(
    12,
    8,
    (b, v, at) => b.writeDoubleLE(v, at),
    () => true,
  ),
};
const LIST_ID = 9;

/** Little-endian bytes, one value after the other. */
export class ByteWriter {
  /** The first `length` bytes are written. */
  buffer: Buffer = Buffer.alloc(1 << 16);
  length = 0;

  /** Makes room for the next bytes and returns where they start; `buffer` may have been replaced. */
  reserve(bytes: number): number {
    const at = this.length;
    this.length += bytes;
    if (this.length > this.buffer.length) {
      const larger = Buffer.alloc(Math.max(2 * this.buffer.length, this.length));
      this.buffer.copy(larger);
      this.buffer = larger;
    }
    return at;
  }

  uint32(value: number): void {
    types.uint32.write(this, value);
  }

  uint64(value: number | bigint): void {
    const at = this.reserve(8);
    this.buffer.writeBigUInt64LE(BigInt(value), at);
  }

  /** Length in bytes as 64 bits, then UTF-8. */
  text(text: string): void {
    const bytes = Buffer.byteLength(text);
    this.uint64(bytes);
    const at = this.reserve(bytes);
    this.buffer.write(text, at);
  }

  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.buffer.set(bytes, at);
  }

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }
}

/** Writes a type id and a value of that type. */
export function writeValue(writer: ByteWriter, value: GgufValueToWrite): void {
  if (value.type === 'encoded') writer.raw(value.bytes);
  else if (value.type === 'array') {
    writer.uint32(LIST_ID);
    writeList(writer, value);
  } else {
    const { id, write } = types[value.type];
    writer.uint32(id);
    write(writer, value.value);
  }
}

function writeList(writer: ByteWriter, list: GgufListToWrite): void {
  const { length } = list.value;
  writer.uint32(list.of === 'array' ? LIST_ID : types[list.of].id);
  writer.uint64(length);
  if (list.of === 'array') for (let i = 0; i < length; i++) writeList(writer, list.value[i]!);
  else {
    const { write } = types[list.of];
    for (let i = 0; i < length; i++) write(writer, list.value[i]!);
  }
}
