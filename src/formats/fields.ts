import { EngineError } from '../base/errors.js';
import type { JsonObject } from './json.js';

/** Inclusive bounds of a number. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
}

/** Inclusive bounds of every element, and how many elements there have to be. */
export interface ListRange extends Range {
  readonly length?: number;
  /** Longest list accepted when `length` is not given. */
  readonly maxLength?: number;
}

/** Counts and sizes cross to native code as int32, so nothing larger is a usable default. */
const MAX_UINT = 2 ** 31 - 1;
const MAX_LIST = 1 << 20;

/**
 * Typed, range-checked reading of what a model says about itself: GGUF metadata and config.json alike.
 *
 * Every method throws CONFIG_INVALID naming the file, the key and the value. A key that is absent and a key whose
 * JSON value is `null` are the same thing; the `optional…` methods return `null` for both, and throw only if a value
 * is there and wrong.
 */
export class Fields {
  /**
   * @param path   the file, for messages
   * @param values GGUF metadata, or an object of a JSON file
   * @param prefix where `values` lies inside the file, for messages ("rope_scaling.")
   */
  constructor(
    readonly path: string,
    private readonly values: ReadonlyMap<string, unknown> | JsonObject,
    private readonly prefix = '',
  ) {}

  /** Whether the key has a value other than null. */
  has(key: string): boolean {
    return this.raw(key) !== null;
  }

  /** The value as it was read, or null; for keys whose type decides their meaning. */
  raw(key: string): unknown {
    const { values } = this;
    if (values instanceof Map) return values.get(key) ?? null;
    return Object.hasOwn(values, key) ? ((values as JsonObject)[key] ?? null) : null;
  }

  keys(): string[] {
    return this.values instanceof Map ? [...this.values.keys()] : Object.keys(this.values);
  }

  /** A whole number; `min` defaults to 0 and `max` to 2^31 - 1. */
  uint(key: string, range: Range = {}): number {
    return this.required(key, this.optionalUint(key, range));
  }

  optionalUint(key: string, range: Range = {}): number | null {
    return this.integer(key, this.raw(key), range);
  }

  /** A finite number. A whole number is one too: JSON and GGUF writers drop the point freely. */
  float(key: string, range: Range = {}): number {
    return this.required(key, this.optionalFloat(key, range));
  }

  optionalFloat(key: string, range: Range = {}): number | null {
    return this.finite(key, this.raw(key), range);
  }

  string(key: string): string {
    return this.required(key, this.optionalString(key));
  }

  optionalString(key: string): string | null {
    return this.ofType(key, 'string', 'a string');
  }

  boolean(key: string): boolean {
    return this.required(key, this.optionalBoolean(key));
  }

  optionalBoolean(key: string): boolean | null {
    return this.ofType(key, 'boolean', 'true or false');
  }

  /** One of the given words. */
  oneOf<T extends string>(key: string, choices: readonly T[]): T {
    return this.required(key, this.optionalOneOf(key, choices));
  }

  optionalOneOf<T extends string>(key: string, choices: readonly T[]): T | null {
    const value = this.optionalString(key);
    if (value === null) return null;
    const choice = choices.find((candidate) => candidate === value);
    if (choice === undefined) throw this.invalid(key, value, `expected one of ${choices.join(', ')}`);
    return choice;
  }

  /** Whole numbers; the range holds for every element. */
  uints(key: string, range: ListRange = {}): number[] {
    return this.required(key, this.optionalUints(key, range));
  }

  optionalUints(key: string, range: ListRange = {}): number[] | null {
    return this.list(key, range, (name, value) => this.integer(name, value, range));
  }

  floats(key: string, range: ListRange = {}): number[] {
    return this.required(key, this.optionalFloats(key, range));
  }

  optionalFloats(key: string, range: ListRange = {}): number[] | null {
    return this.list(key, range, (name, value) => this.finite(name, value, range));
  }

  strings(key: string, range: Pick<ListRange, 'length' | 'maxLength'> = {}): string[] {
    return this.required(key, this.optionalStrings(key, range));
  }

  optionalStrings(key: string, range: Pick<ListRange, 'length' | 'maxLength'> = {}): string[] | null {
    return this.list(key, range, (name, value) => {
      if (typeof value !== 'string') throw this.invalid(name, value, 'expected a string');
      return value;
    });
  }

  booleans(key: string, range: Pick<ListRange, 'length' | 'maxLength'> = {}): boolean[] {
    return this.required(key, this.optionalBooleans(key, range));
  }

  optionalBooleans(key: string, range: Pick<ListRange, 'length' | 'maxLength'> = {}): boolean[] | null {
    return this.list(key, range, (name, value) => {
      if (typeof value !== 'boolean') throw this.invalid(name, value, 'expected true or false');
      return value;
    });
  }

  /** Whether the value is a list, as opposed to one value for all layers. */
  isList(key: string): boolean {
    const value = this.raw(key);
    return Array.isArray(value) || ArrayBuffer.isView(value);
  }

  /** The fields of a nested object. */
  child(key: string): Fields {
    return this.required(key, this.optionalChild(key));
  }

  optionalChild(key: string): Fields | null {
    const value = this.raw(key);
    if (value === null) return null;
    if (typeof value !== 'object' || this.isList(key)) throw this.invalid(key, value, 'expected an object');
    return new Fields(this.path, value as JsonObject, `${this.prefix}${key}.`);
  }

  /** The error for a value that is of the right type and still makes no sense; the caller throws it. */
  invalid(key: string, value: unknown, problem: string): EngineError {
    return new EngineError('CONFIG_INVALID', { path: this.path, field: this.prefix + key, value, problem });
  }

  private required<T>(key: string, value: T | null): T {
    if (value === null) throw this.invalid(key, undefined, 'but the model cannot be read without it');
    return value;
  }

  private ofType<T>(key: string, type: 'string' | 'boolean', expected: string): T | null {
    const value = this.raw(key);
    if (value === null) return null;
    if (typeof value !== type) throw this.invalid(key, value, `expected ${expected}`);
    return value as T;
  }

  private integer(key: string, value: unknown, { min = 0, max = MAX_UINT }: Range): number | null {
    if (value === null) return null;
    // A bigint is a 64-bit value beyond the safe integers, so it is out of every range.
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.invalid(key, value, `expected a whole number from ${min} to ${max}`);
    }
    return value;
  }

  private finite(key: string, value: unknown, { min, max }: Range): number | null {
    if (value === null) return null;
    const inRange = (n: number) => Number.isFinite(n) && n >= (min ?? -Infinity) && n <= (max ?? Infinity);
    if (typeof value !== 'number' || !inRange(value)) {
      const bounds = `${min === undefined ? '' : ` of at least ${min}`}${max === undefined ? '' : ` up to ${max}`}`;
      throw this.invalid(key, value, `expected a finite number${bounds}`);
    }
    return value;
  }

  private list<T>(key: string, range: ListRange, read: (name: string, value: unknown) => T | null): T[] | null {
    const value = this.raw(key);
    if (value === null) return null;
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) throw this.invalid(key, value, 'expected a list');
    const { length, maxLength = MAX_LIST } = range;
    const items = value as unknown as ArrayLike<unknown>;
    if (length !== undefined && items.length !== length) {
      throw this.invalid(key, value, `expected ${length} elements`);
    }
    if (items.length > maxLength) throw this.invalid(key, value, `expected at most ${maxLength} elements`);
    return Array.from(items, (item, i) => this.required(`${key}[${i}]`, read(`${key}[${i}]`, item)));
  }
}
