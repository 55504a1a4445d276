import type { ByteCursor } from './byte-cursor.js';

/**
 * A metadata value. 64-bit integers are numbers where that is exact, else bigints. Lists of numbers up to 32 bits and
 * of float64 are typed arrays; bytes of strings that are not UTF-8 have become U+FFFD.
 */
export type GgufValue = number | bigint | boolean | string | GgufList;

export type GgufList =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | readonly GgufValue[];

/** A chat template has about 10 kB, an embedded tokenizer.json up to 40 MB. */
const MAX_STRING_BYTES = 1 << 26;
/** Over all lists of a file. A vocabulary of 262,144 tokens with its scores, types and merges has 1.3 million. */
export const MAX_LIST_ELEMENTS = 1 << 22;
/** Lists within lists; none are known to be in use. */
const MAX_DEPTH = 4;
/** What a list within a list counts for, in elements: even an empty one is an object of some 300 bytes. */
const LIST_COST = 64;

/** One row per value type of the specification: its id is the index. */
interface ValueType {
  readonly name: string;
  /** Fewest bytes of one value; a list of `n` values cannot be shorter than `n` times this. */
  readonly minBytes: number;
  read(cursor: ByteCursor, budget: ListBudget, depth: number): GgufValue;
  /** All of a list at once, where that is faster than one by one. */
  readList?(bytes: ArrayBuffer): GgufList;
}

/** How many more list elements a file may have; shared by all of its values. */
export interface ListBudget {
  elements: number;
}

const valueTypes: readonly ValueType[] = [
  { name: 'uint8', minBytes: 1, read: (c) => c.uint8(), readList: (bytes) => new Uint8Array(bytes) },
  { name: 'int8', minBytes: 1, read: (c) => c.int8(), readList: (bytes) => new Int8Array(bytes) },
  { name: 'uint16', minBytes: 2, read: (c) => c.uint16(), readList: (bytes) => new Uint16Array(bytes) },
  { name: 'int16', minBytes: 2, read: (c) => c.int16(), readList: (bytes) => new Int16Array(bytes) },
  { name: 'uint32', minBytes: 4, read: (c) => c.uint32(), readList: (bytes) => new Uint32Array(bytes) },
  { name: 'int32', minBytes: 4, read: (c) => c.int32(), readList: (bytes) => new Int32Array(bytes) },
  { name: 'float32', minBytes: 4, read: (c) => c.float32(), readList: (bytes) => new Float32Array(bytes) },
  { name: 'bool', minBytes: 1, read: readBoolean },
  { name: 'string', minBytes: 8, read: (c) => c.text(MAX_STRING_BYTES) },
  { name: 'array', minBytes: 12, read: readList },
  { name: 'uint64', minBytes: 8, read: (c) => c.uint64() },
  { name: 'int64', minBytes: 8, read: (c) => c.int64() },
  { name: 'float64', minBytes: 8, read: (c) => c.float64(), readList: (bytes) => new Float64Array(bytes) },
];

/** Reads a type id and a value of that type. Throws FORMAT_INVALID or FORMAT_LIMIT, naming `cursor.field`. */
export function readValue(cursor: ByteCursor, budget: ListBudget): GgufValue {
  return readType(cursor, 'type').read(cursor, budget, 1);
}

function readType(cursor: ByteCursor, what: string): ValueType {
  const id = cursor.uint32();
  const type = valueTypes[id];
  if (type === undefined) throw cursor.invalid(what, id, `expected one of the ${valueTypes.length} types of GGUF`);
  return type;
}

function readBoolean(cursor: ByteCursor): boolean {
  const byte = cursor.uint8();
  if (byte > 1) throw cursor.invalid('', byte, 'expected 0 or 1 for a bool');
  return byte === 1;
}

function readList(cursor: ByteCursor, budget: ListBudget, depth: number): GgufList {
  if (depth > MAX_DEPTH) throw cursor.overLimit('depth of lists', depth, MAX_DEPTH);
  const type = readType(cursor, 'element type');
  const cost = type.name === 'array' ? LIST_COST : 1;
  const length = cursor.count('number of elements', Math.floor(budget.elements / cost));
  budget.elements -= length * cost;
  if (length * type.minBytes > cursor.remaining) {
    const problem = `but only ${cursor.remaining} bytes follow in the file`;
    throw cursor.invalid('number of elements', length, problem);
  }
  if (type.readList !== undefined) return type.readList(cursor.bytes(length * type.minBytes));

  const values: GgufValue[] = [];
  for (let i = 0; i < length; i++) {
    cursor.element = i;
    values.push(type.read(cursor, budget, depth + 1));
  }
  cursor.element = -1;
  return values;
}
