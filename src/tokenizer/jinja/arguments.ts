import type { Budget } from './budget.js';
import type { Value } from './library.js';
import { isBoolean, isDictionary, isNone, isNumber, isText, typeName } from './values.js';

/** Arguments of a filter, a method or a function of ours. */
export class Arguments {
  readonly positional: readonly Value[];
  readonly #named: ReadonlyMap<unknown, Value>;

  /**
   * @param name   of what is called, for messages
   * @param values as the library passes them: keyword arguments are a dictionary of their own kind at the end
   */
  constructor(
    readonly name: string,
    values: readonly Value[],
    readonly budget: Budget,
  ) {
    const last = values.at(-1);
    const named = last !== undefined && last.type === 'KeywordArgumentsValue' && isDictionary(last) ? last.value : null;
    this.positional = named === null ? values : values.slice(0, -1);
    this.#named = named ?? new Map();
  }

  get named(): ReadonlyMap<string, Value> {
    return this.#named as ReadonlyMap<string, Value>;
  }

  /** The argument at a place or with a name; undefined if it is not given. */
  at(index: number, name = ''): Value | undefined {
    return this.positional[index] ?? this.#named.get(name);
  }

  required(index: number, name = ''): Value {
    const value = this.at(index, name);
    if (value === undefined) throw new Error(`${this.name} needs an argument${name && ` ${name}`}`);
    return value;
  }

  /** None counts as not given, here and below. */
  text(index: number, name: string, absent: string): string;
  text(index: number, name: string, absent: null): string | null;
  text(index: number, name: string, absent: string | null): string | null {
    const value = this.at(index, name);
    if (value === undefined || isNone(value)) return absent;
    if (!isText(value)) throw this.#wrong(value, 'str');
    return value.value;
  }

  /** A whole number. */
  count(index: number, name: string, absent: number): number {
    const value = this.at(index, name);
    if (value === undefined || isNone(value)) return absent;
    if (!isNumber(value) || !Number.isInteger(value.value)) throw this.#wrong(value, 'int');
    return value.value;
  }

  flag(index: number, name: string): boolean {
    const value = this.at(index, name);
    if (value === undefined || isNone(value)) return false;
    if (!isBoolean(value)) throw this.#wrong(value, 'bool');
    return value.value;
  }

  #wrong(value: Value, expected: string): Error {
    return new Error(`${this.name} got ${typeName(value)} where it needs ${expected}`);
  }
}
