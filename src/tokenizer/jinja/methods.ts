import type { Arguments } from './arguments.js';
import type { Value } from './library.js';
import { elements, joined, pairs } from './list-filters.js';
import { printed } from './python-text.js';
import {
  capitalize,
  format,
  occurrences,
  replace,
  type Side,
  split,
  splitRight,
  strip,
  titled,
} from './text-functions.js';
import { boolean, integer, isDictionary, isList, isText, keyOf, list, none, text } from './values.js';

const texts = (values: readonly string[]): Value => list(values.map(text));

type Method = (value: Value, args: Arguments) => Value;
type TextMethod = (value: string, args: Arguments) => Value;

const changed =
  (change: (value: string) => string): TextMethod =>
  (value) =>
    text(change(value));
const stripped =
  (side: Side): TextMethod =>
  (value, args) =>
    text(strip(value, args.text(0, 'chars', null), side));
const isAll =
  (pattern: RegExp): TextMethod =>
  (value) =>
    boolean(pattern.test(value));

/** Whether a text begins or ends with another one, or with one of several. */
function affixed(test: (value: string, affix: string) => boolean): TextMethod {
  return (value, args) => {
    const wanted = args.required(0);
    const affixes = isList(wanted) ? wanted.value : [wanted];
    if (!affixes.every(isText)) throw new Error(`${args.name} needs text`);
    return boolean(affixes.some((affix) => test(value, affix.value as string)));
  };
}

function replaced(value: string, args: Arguments): Value {
  const [old, by] = [args.text(0, 'old', null), args.text(1, 'new', null)];
  if (old === null || by === null) throw new Error('replace needs two texts');
  return text(replace(value, old, by, args.count(2, 'count', -1), args.budget));
}

function found(value: string, args: Arguments): Value {
  const wanted = args.text(0, 'sub', '');
  args.budget.searchText(value.length, wanted.length);
  return integer(value.indexOf(wanted));
}

function counted(value: string, args: Arguments): Value {
  const wanted = args.text(0, 'sub', '');
  args.budget.searchText(value.length, wanted.length);
  return integer(wanted === '' ? value.length + 1 : occurrences(value, wanted));
}

function formatted(value: string, args: Arguments): Value {
  const fieldText = (field: string) =>
    printed(args.required(/^\d+$/.test(field) ? Number(field) : -1, field), args.budget);
  return text(format(value, fieldText, args.budget));
}

const textMethods: ReadonlyMap<string, TextMethod> = new Map<string, TextMethod>([
  ['upper', changed((value) => value.toUpperCase())],
  ['lower', changed((value) => value.toLowerCase())],
  ['capitalize', changed(capitalize)],
  ['title', (value, { budget }) => text(titled(value, /\p{L}+/gu, budget))],
  ['strip', stripped('both')],
  ['lstrip', stripped('left')],
  ['rstrip', stripped('right')],
  ['startswith', affixed((value, affix) => value.startsWith(affix))],
  ['endswith', affixed((value, affix) => value.endsWith(affix))],
  [
    'split',
    (value, args) => texts(split(value, args.text(0, 'sep', null), args.count(1, 'maxsplit', -1), args.budget)),
  ],
  [
    'rsplit',
    (value, args) => texts(splitRight(value, args.text(0, 'sep', null), args.count(1, 'maxsplit', -1), args.budget)),
  ],
  ['splitlines', (value, args) => texts(value === '' ? [] : split(value.replace(/\n$/, ''), '\n', -1, args.budget))],
  ['replace', replaced],
  ['find', found],
  ['count', counted],
  ['format', formatted],
  ['join', (value, args) => joined(elements(args.required(0), args.budget), value, args.budget)],
  ['isdigit', isAll(/^\p{Nd}+$/u)],
  ['isalpha', isAll(/^\p{L}+$/u)],
]);

const dictionaryMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ['items', (value, { budget }) => list(pairs(value, budget))],
  ['keys', (value, { budget }) => list(elements(value, budget))],
  ['values', (value, { budget }) => list(pairs(value, budget).map((pair) => (pair.value as readonly Value[])[1]!))],
  ['get', valueAt],
]);

function valueAt(value: Value, args: Arguments): Value {
  const key = keyOf(args.required(0, 'key'));
  const entry = key !== null && isDictionary(value) ? value.value.get(key) : undefined;
  return entry ?? args.at(1, 'default') ?? none();
}

/**
 * A method of a text or a dictionary; undefined if it has none of this name. Methods that would change a list or a
 * dictionary do not exist: templates are given the messages of others to read.
 */
export function methodOf(value: Value, name: string): ((args: Arguments) => Value) | undefined {
  if (isText(value)) {
    const method = textMethods.get(name);
    return (
      method &&
      ((args) => {
        args.budget.workOnText(value.value.length);
        return method(value.value, args);
      })
    );
  }
  const method = isDictionary(value) ? dictionaryMethods.get(name) : undefined;
  return method && ((args) => method(value, args));
}
