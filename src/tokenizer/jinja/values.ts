import { Environment, type FunctionBody, type Value } from './library.js';

interface TextValue extends Value {
  readonly value: string;
}
export interface NumberValue extends Value {
  readonly value: number;
}
interface BooleanValue extends Value {
  readonly value: boolean;
}
interface ListValue extends Value {
  readonly value: readonly Value[];
}
/** Keys are text or, in literals of a template, numbers. */
export type Key = string | number;
interface DictionaryValue extends Value {
  readonly value: ReadonlyMap<Key, Value>;
}

// The library does not export the classes of its values, so they are taken from values.
const examples = new Environment();
const classOf = <T>(name: string, example: unknown): (new (value: T) => Value) =>
  examples.set(name, example).constructor as new (
    value: T,
  ) => Value;

const Text = classOf<string>('text', '');
const Integer = classOf<number>('integer', 0);
const Float = classOf<number>('float', 0.5);
const Bool = classOf<boolean>('boolean', true);
const None = classOf<null>('none', null);
const Undefined = classOf<undefined>('undefined', undefined);
const List = classOf<readonly Value[]>('list', []);
/** A list to the library, whose loops do not unpack its own tuples. */
class Tuple extends List {}
const Dictionary = classOf<ReadonlyMap<Key, Value>>('dictionary', {});
const Callable = classOf<FunctionBody>('callable', () => null);

export const text = (value: string): Value => new Text(value);
export const integer = (value: number): Value => new Integer(value);
export const float = (value: number): Value => new Float(value);
export const boolean = (value: boolean): Value => new Bool(value);
export const none = (): Value => new None(null);
export const undefinedValue = (): Value => new Undefined(undefined);
export const list = (values: readonly Value[]): Value => new List(values);
export const tuple = (values: readonly Value[]): Value => new Tuple(values);
export const dictionary = (entries: ReadonlyMap<Key, Value>): Value => new Dictionary(entries);
export const callable = (body: FunctionBody): Value => new Callable(body);

export const isText = (value: Value): value is TextValue => value instanceof Text;
export const isFloat = (value: Value): boolean => value instanceof Float;
export const isInteger = (value: Value): boolean => value instanceof Integer;
export const isNumber = (value: Value): value is NumberValue => isInteger(value) || isFloat(value);
export const isBoolean = (value: Value): value is BooleanValue => value instanceof Bool;
export const isNone = (value: Value): boolean => value instanceof None;
export const isUndefined = (value: Value): boolean => value instanceof Undefined;
export const isList = (value: Value): value is ListValue => value instanceof List;
export const isTuple = (value: Value): boolean => value instanceof Tuple;
export const isDictionary = (value: Value): value is DictionaryValue => value instanceof Dictionary;

export const isTrue = (value: Value): boolean => value.__bool__().value;

/** The number of integers, floats, and truth values, which count as 0 and 1; else null. */
export function numberOf(value: Value): number | null {
  if (isNumber(value)) return value.value;
  return isBoolean(value) ? Number(value.value) : null;
}

export const keyValue = (key: Key): Value => (typeof key === 'number' ? integer(key) : text(key));

/** The key that a value is in a dictionary; null for values that are no keys. */
export function keyOf(value: Value): Key | null {
  return isText(value) ? value.value : numberOf(value);
}

/** Names of types in messages, as Python has them. */
export function typeName(value: Value): string {
  if (isUndefined(value)) return 'undefined';
  if (isNone(value)) return 'None';
  if (isText(value)) return 'str';
  if (isBoolean(value)) return 'bool';
  if (isNumber(value)) return isFloat(value) ? 'float' : 'int';
  if (isList(value)) return 'list';
  if (isDictionary(value)) return 'dict';
  return value instanceof Callable ? 'function' : 'namespace';
}

/** What a loop goes over: elements, keys, characters; nothing for an undefined value. Null if it cannot. */
export function elementsOf(value: Value): readonly Value[] | null {
  if (isList(value)) return value.value;
  if (isDictionary(value)) return Array.from(value.value.keys(), keyValue);
  if (isText(value)) return Array.from(value.value, text);
  return isUndefined(value) ? [] : null;
}
