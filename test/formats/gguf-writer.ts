import { type DType, dtypes, matrixBytes } from '../../src/tensor/dtype.js';

/** Value types of GGUF in the order of their ids. */
const typeNames = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64',
] as const;

export type GgufType = (typeof typeNames)[number];

/** A value whose type in the file is chosen, not guessed. */
export interface Typed {
  readonly type: GgufType;
  readonly value: unknown;
  /** Element type, for arrays. */
  readonly of?: GgufType;
}

export function typed(type: Exclude<GgufType, 'array'>, value: number | bigint | boolean | string): Typed {
  return { type, value };
}

export function list(of: GgufType, value: ArrayLike<unknown>): Typed {
  return { type: 'array', value, of };
}

/** A plain value is written as string, bool, uint32 (int32 if negative), float32 or an array of one of these. */
export type MetadataInput = string | number | boolean | readonly (string | number | boolean)[] | Typed;

export interface TensorInput {
  readonly name: string;
  readonly dtype: DType;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** As stored; zeros if left out. */
  readonly bytes?: Uint8Array;

  // What a hostile writer would put in place of the truth:
  readonly typeId?: number;
  readonly numDimensions?: number;
  /** Innermost first, as in the file. */
  readonly dimensions?: readonly (number | bigint)[];
  readonly offset?: number | bigint;
}

export interface GgufInput {
  readonly version?: number;
  /** Pairs instead of an object allow a key twice. */
  readonly metadata?:
    | Readonly<Record<string, MetadataInput>>
    | readonly (readonly [string | Uint8Array, MetadataInput])[];
  readonly tensors?: readonly TensorInput[];
  /** Bytes; written as general.alignment if it is not 32. */
  readonly alignment?: number;

  readonly magic?: string;
  readonly numTensors?: number | bigint;
  readonly numKeys?: number | bigint;
}

/** A complete GGUF file, version 3, as the given input says: also where that is wrong on purpose. */
export function writeGguf(input: GgufInput): Uint8Array {
  const { version = 3, metadata = { 'general.architecture': 'test' }, tensors = [], alignment = 32 } = input;
  const pairs: (readonly [string | Uint8Array, MetadataInput])[] = Array.isArray(metadata)
    ? [...metadata]
    : Object.entries(metadata);
  if (alignment !== 32) pairs.push(['general.alignment', alignment]);

  const header = new ByteWriter();
  header.raw(Buffer.from(input.magic ?? 'GGUF', 'latin1'));
  header.scalar('uint32', version);
  header.scalar('uint64', input.numTensors ?? tensors.length);
  header.scalar('uint64', input.numKeys ?? pairs.length);
  for (const [key, value] of pairs) {
    header.text(key);
    header.value(toTyped(value));
  }
  const data = new ByteWriter();
  for (const tensor of tensors) {
    const dimensions = tensor.dimensions ?? tensor.shape.toReversed();
    data.padTo(alignment);
    header.text(tensor.name);
    header.scalar('uint32', tensor.numDimensions ?? dimensions.length);
    for (const dimension of dimensions) header.scalar('uint64', dimension);
    header.scalar('uint32', tensor.typeId ?? dtypes[tensor.dtype].id);
    header.scalar('uint64', tensor.offset ?? data.length);
    data.raw(tensor.bytes ?? new Uint8Array(tensorBytes(tensor.dtype, tensor.shape)));
  }
  if (tensors.length > 0) header.padTo(alignment);
  header.raw(data.bytes());
  return header.bytes();
}

/** Bytes of a tensor of this shape. */
export function tensorBytes(dtype: DType, shape: readonly number[]): number {
  const columns = shape.at(-1) ?? 1;
  return matrixBytes(dtype, shape.reduce((a, b) => a * b, 1) / columns, columns) ?? 0;
}

/** Little-endian bytes of float32 values. */
export function float32Bytes(values: Iterable<number>): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

function toTyped(input: MetadataInput): Typed {
  if (typeof input === 'string') return { type: 'string', value: input };
  if (typeof input === 'boolean') return { type: 'bool', value: input };
  if (typeof input === 'number') return { type: numberType([input]), value: input };
  if (!Array.isArray(input)) return input as Typed;
  const [first] = input;
  if (typeof first === 'number') return list(numberType(input as number[]), input);
  return list(typeof first === 'boolean' ? 'bool' : 'string', input);
}

function numberType(values: readonly number[]): GgufType {
  if (!values.every(Number.isInteger)) return 'float32';
  return values.some((value) => value < 0) ? 'int32' : 'uint32';
}

/** Bytes of a value, and what writes it. */
type ScalarWriter = readonly [length: number, write: (view: DataView, value: number | bigint | boolean) => void];

const scalars: Readonly<Partial<Record<GgufType, ScalarWriter>>> = {
  uint8: [1, (view, value) => view.setUint8(0, Number(value))],
  int8: [1, (view, value) => view.setInt8(0, Number(value))],
  bool: [1, (view, value) => view.setUint8(0, Number(value))],
  uint16: [2, (view, value) => view.setUint16(0, Number(value), true)],
  int16: [2, (view, value) => view.setInt16(0, Number(value), true)],
  uint32: [4, (view, value) => view.setUint32(0, Number(value), true)],
  int32: [4, (view, value) => view.setInt32(0, Number(value), true)],
  float32: [4, (view, value) => view.setFloat32(0, Number(value), true)],
  uint64: [8, (view, value) => view.setBigUint64(0, BigInt(value), true)],
  int64: [8, (view, value) => view.setBigInt64(0, BigInt(value), true)],
  float64: [8, (view, value) => view.setFloat64(0, Number(value), true)],
};

class ByteWriter {
  private readonly parts: Uint8Array[] = [];
  length = 0;

  raw(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.length;
  }

  padTo(alignment: number): void {
    if (alignment > 0) this.raw(new Uint8Array((alignment - (this.length % alignment)) % alignment));
  }

  text(text: string | Uint8Array): void {
    const bytes = typeof text === 'string' ? Buffer.from(text) : text;
    this.scalar('uint64', bytes.length);
    this.raw(bytes);
  }

  value({ type, value, of }: Typed): void {
    this.scalar('uint32', typeNames.indexOf(type));
    this.payload(type, value, of);
  }

  private payload(type: GgufType, value: unknown, of?: GgufType): void {
    if (type === 'string') this.text(value as string);
    else if (type !== 'array') this.scalar(type, value as number | bigint);
    else {
      const items = value as ArrayLike<unknown>;
      this.scalar('uint32', typeNames.indexOf(of as GgufType));
      this.scalar('uint64', items.length);
      const fast = of === 'uint8' && items instanceof Uint8Array;
      if (fast) this.raw(items);
      for (const item of fast ? [] : Array.from(items)) {
        const nested = item as Typed;
        if (of === 'array') this.payload('array', nested.value, nested.of);
        else this.payload(of as GgufType, item);
      }
    }
  }

  scalar(type: GgufType, value: number | bigint | boolean): void {
    const [length, write] = scalars[type] as ScalarWriter;
    const bytes = new Uint8Array(length);
    write(new DataView(bytes.buffer), value);
    this.raw(bytes);
  }

  bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.parts));
  }
}
