import type { Arguments } from './arguments.js';
import type { Budget } from './budget.js';
import type { Value } from './library.js';
import { compare, equal } from './operators.js';
import { Pieces, printed } from './python-text.js';
import { testNamed } from './tests.js';
import {
  elementsOf,
  integer,
  isDictionary,
  isList,
  isText,
  isTrue,
  isUndefined,
  keyOf,
  keyValue,
  list,
  numberOf,
  text,
  tuple,
  typeName,
  undefinedValue,
} from './values.js';

type Filter = (operand: Value, args: Arguments) => Value;

/** What a loop over the value sees. Throws for what is not iterable. */
export function elements(value: Value, budget: Budget): readonly Value[] {
  const size = isText(value) ? value.value.length : isDictionary(value) ? value.value.size : 0;
  budget.makeList(size);
  const found = elementsOf(value);
  if (found === null) throw new Error(`${typeName(value)} is not iterable`);
  return found;
}

/** A member by a path such as "function.name" or "items.0"; undefined where there is none. */
function attribute(value: Value, path: string): Value {
  let at: Value | undefined = value;
  for (const name of path.split('.')) {
    if (at !== undefined && isDictionary(at)) at = at.value.get(name);
    else if (at !== undefined && isList(at) && /^\d+$/.test(name)) at = at.value[Number(name)];
    else return undefinedValue();
  }
  return at ?? undefinedValue();
}

/** What elements are compared by: themselves or an attribute, and texts without case. */
function sortKey(args: Arguments, caseSensitive: boolean, path: string | null): (element: Value) => Value {
  return (element) => {
    const key = path === null ? element : attribute(element, path);
    if (caseSensitive || !isText(key)) return key;
    args.budget.workOnText(key.value.length);
    return text(key.value.toLowerCase());
  };
}

function sort(operand: Value, args: Arguments): Value {
  const reverse = args.flag(0, 'reverse');
  const key = sortKey(args, args.flag(1, 'case_sensitive'), attributeName(args.at(2, 'attribute')));
  return list(sorted(elements(operand, args.budget), key, reverse, args.budget));
}

function sorted<T>(values: readonly T[], key: (value: T) => Value, reverse: boolean, budget: Budget): T[] {
  budget.makeList(values.length);
  const keyed = values.map((value) => ({ value, key: key(value) }));
  const sign = reverse ? -1 : 1;
  return keyed.sort((a, b) => sign * compare(a.key, b.key, budget)).map(({ value }) => value);
}

function attributeName(value: Value | undefined): string | null {
  return value === undefined ? null : String(keyOf(value) ?? '');
}

function dictsort(operand: Value, args: Arguments): Value {
  if (!isDictionary(operand)) throw new Error(`dictsort sorts a dict, not ${typeName(operand)}`);
  const by = args.text(1, 'by', 'key');
  const key = sortKey(args, args.flag(0, 'case_sensitive'), by === 'value' ? '1' : '0');
  return list(sorted(pairs(operand, args.budget), key, args.flag(2, 'reverse'), args.budget));
}

/** [key, value] of every entry. */
export function pairs(value: Value, budget: Budget): Value[] {
  if (isUndefined(value)) return [];
  if (!isDictionary(value)) throw new Error(`${typeName(value)} has no items`);
  budget.makeList(2 * value.value.size);
  return [...value.value].map(([key, entry]) => tuple([keyValue(key), entry]));
}

function unique(operand: Value, args: Arguments): Value {
  const key = sortKey(args, args.flag(0, 'case_sensitive'), attributeName(args.at(1, 'attribute')));
  const seen = new Set<unknown>();
  const others: Value[] = [];
  const isNew = (value: Value) => {
    const simple = isText(value) ? `'${value.value}` : numberOf(value);
    if (simple !== null) return !seen.has(simple) && seen.add(simple);
    return !others.some((other) => equal(other, value, args.budget)) && others.push(value) > 0;
  };
  return list(elements(operand, args.budget).filter((element) => isNew(key(element))));
}

function join(operand: Value, args: Arguments): Value {
  const separator = printed(args.at(0, 'd') ?? text(''), args.budget);
  const path = attributeName(args.at(1, 'attribute'));
  const values = elements(operand, args.budget);
  return joined(path === null ? values : values.map((element) => attribute(element, path)), separator, args.budget);
}

export function joined(values: readonly Value[], separator: string, budget: Budget): Value {
  const pieces = new Pieces(budget);
  values.forEach((value, i) => {
    if (i > 0) pieces.push(separator);
    pieces.push(printed(value, budget));
  });
  return text(pieces.toString());
}

/** The elements (or those whose attribute) that pass a test, or do not. */
function selection(keep: boolean, byAttribute: boolean): Filter {
  return (operand, args) => {
    const [name, ...rest] = byAttribute ? args.positional.slice(1) : args.positional;
    const test = name === undefined ? isTrue : testNamed(printed(name, args.budget));
    const path = byAttribute ? attributeName(args.required(0, 'attribute')) : null;
    const tested = (element: Value) => (path === null ? element : attribute(element, path));
    const values = elements(operand, args.budget);
    args.budget.makeList(values.length);
    return list(values.filter((element) => test(tested(element), rest, args.budget) === keep));
  };
}

/** The value of an attribute of every element. */
export function mapAttribute(operand: Value, args: Arguments): Value {
  const path = attributeName(args.required(1, 'attribute'));
  const absent = args.at(2, 'default');
  return mapElements(operand, args, (element) => {
    const value = attribute(element, path!);
    return isUndefined(value) && absent !== undefined ? absent : value;
  });
}

export function mapElements(operand: Value, args: Arguments, change: (element: Value) => Value): Value {
  const values = elements(operand, args.budget);
  args.budget.makeList(values.length);
  return list(values.map(change));
}

/** The least (sign 1) or greatest (sign -1) element. */
function extreme(sign: 1 | -1): Filter {
  return (operand, args) => {
    const key = sortKey(args, args.flag(0, 'case_sensitive'), attributeName(args.at(1, 'attribute')));
    const values = elements(operand, args.budget);
    return values.length === 0
      ? undefinedValue()
      : values.reduce((best, value) => (sign * compare(key(value), key(best), args.budget) < 0 ? value : best));
  };
}

function length(operand: Value, { budget }: Arguments): Value {
  if (isList(operand)) return integer(operand.value.length);
  if (isDictionary(operand)) return integer(operand.value.size);
  if (isUndefined(operand)) return integer(0);
  if (!isText(operand)) throw new Error(`${typeName(operand)} has no length`);
  budget.workOnText(operand.value.length);
  let pairs = 0; // characters beyond the basic plane are two UTF-16 units
  for (let i = 0; i < operand.value.length; i++) pairs += Number((operand.value.charCodeAt(i) & 0xfc00) === 0xdc00);
  return integer(operand.value.length - pairs);
}

function reverse(operand: Value, { budget }: Arguments): Value {
  const values = elements(operand, budget);
  budget.makeList(values.length);
  const reversed = values.toReversed();
  return isText(operand) ? text(reversed.map(({ value }) => value).join('')) : list(reversed);
}

/** Filters of lists, dictionaries and the characters of texts. */
export const listFilters: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['list', (operand, { budget }) => list(elements(operand, budget))],
  ['first', (operand, { budget }) => elements(operand, budget)[0] ?? undefinedValue()],
  ['last', (operand, { budget }) => elements(operand, budget).at(-1) ?? undefinedValue()],
  ['length', length],
  ['count', length],
  ['reverse', reverse],
  ['sort', sort],
  ['dictsort', dictsort],
  ['items', (operand, { budget }) => list(pairs(operand, budget))],
  ['unique', unique],
  ['join', join],
  ['select', selection(true, false)],
  ['reject', selection(false, false)],
  ['selectattr', selection(true, true)],
  ['rejectattr', selection(false, true)],
  ['min', extreme(1)],
  ['max', extreme(-1)],
]);
