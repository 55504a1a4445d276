import { EngineError } from '../base/errors.js';
import { matrixBytes } from '../tensor/dtype.js';
import { LINE, type PackedDType, packedLayouts } from '../tensor/packed.js';
import { isObject, type JsonObject, type JsonValue, parseJsonObject } from './json.js';

/**
 * Matrices in the engine's own types in a safetensors file: the format has no such types, so each is a list of bytes
 * (U8) to other readers, and the file's metadata say what it is: `{ "NAME": { "dtype": "int4", "shape": [R, C] }, … }`.
 */
export const PACKED_KEY = 'engine.packed_tensors';

const packedTypes = Object.keys(packedLayouts) as PackedDType[];

export interface PackedShape {
  readonly dtype: PackedDType;
  readonly shape: readonly [rows: number, columns: number];
}

/** A tensor as the header has it. */
interface StoredSpan {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** First byte, from the start of the file. */
  readonly offset: number;
}

/**
 * What the metadata say of these tensors, by name. Throws FORMAT_INVALID for one that is not there, has other bytes than
 * it says, or is not aligned: kernels read panels where they lie.
 */
export function readPackedShapes(
  path: string,
  metadata: JsonObject,
  spans: readonly StoredSpan[],
): ReadonlyMap<string, PackedShape> {
  const text = metadata[PACKED_KEY];
  if (typeof text !== 'string') return new Map();
  const entries = parseJsonObject(path, new TextEncoder().encode(text));
  const byName = new Map(spans.map((span) => [span.name, span]));
  return new Map(
    Object.entries(entries).map(([name, entry]) => [name, packedShape(path, name, entry, byName.get(name))]),
  );
}

function packedShape(path: string, name: string, entry: JsonValue, span: StoredSpan | undefined): PackedShape {
  const invalid = (what: string, value: unknown, problem: string) =>
    new EngineError('FORMAT_INVALID', { path, field: `packed tensor ${name}${what}`, value, problem });
  if (span?.type !== 'U8' || span.shape.length !== 1) throw invalid('', span?.type, 'expected a list of U8');
  if (!isObject(entry)) throw invalid('', entry, 'expected an object');
  const dtype = packedTypes.find((type) => type === entry.dtype);
  if (dtype === undefined) throw invalid(' dtype', entry.dtype, `expected one of ${packedTypes.join(', ')}`);
  const [rows, columns, ...rest] = Array.isArray(entry.shape) ? entry.shape : [];
  if (!isSize(rows) || !isSize(columns) || rest.length > 0) {
    throw invalid(' shape', entry.shape, 'expected two whole numbers above 0');
  }
  const expected = matrixBytes(dtype, rows, columns);
  if (span.byteLength !== expected) {
    const problem = `but ${dtype} of shape [${rows}, ${columns}] has ${expected ?? 'groups that do not divide its rows'}`;
    throw invalid(' size', span.byteLength, problem);
  }
  if (span.offset % LINE !== 0) throw invalid(' position', span.offset, `expected a multiple of ${LINE}`);
  return { dtype, shape: [rows, columns] };
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}
