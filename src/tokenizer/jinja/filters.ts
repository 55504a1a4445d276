import { Arguments } from './arguments.js';
import { type Budget, templateLimits } from './budget.js';
import { jsonText } from './json-text.js';
import type { Value } from './library.js';
import { listFilters, mapAttribute, mapElements } from './list-filters.js';
import { printed } from './python-text.js';
import { capitalize, indent, replace, strip, titled } from './text-functions.js';
import { isList, isNone, isNumber, isText, isTrue, isUndefined, text, typeName } from './values.js';

export type Filter = (operand: Value, args: Arguments) => Value;

/** A filter of the text of any value, as in Jinja: undefined is empty. */
function ofText(filter: (value: string, args: Arguments) => string): Filter {
  return (operand, args) => {
    const value = printed(operand, args.budget);
    args.budget.workOnText(value.length);
    return text(filter(value, args));
  };
}

/** Words in Jinja; an apostrophe does not end them. */
const titleWords = /[^-\s({[<]+/g;

/**
 * Filters that are ours: those that the library lacks, or has in a way that is not Python's, or whose cost it does not
 * bound. The others are the library's: abs, int, float, safe.
 */
const filters: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['string', ofText((value) => value)],
  ['upper', ofText((value) => value.toUpperCase())],
  ['lower', ofText((value) => value.toLowerCase())],
  ['capitalize', ofText(capitalize)],
  ['title', ofText((value, { budget }) => titled(value, titleWords, budget))],
  ['trim', ofText((value, args) => strip(value, args.text(0, 'chars', null), 'both'))],
  [
    'replace',
    ofText((value, args) => {
      const [old, by] = [args.required(0, 'old'), args.required(1, 'new')].map((v) => printed(v, args.budget));
      return replace(value, old!, by!, args.count(2, 'count', -1), args.budget);
    }),
  ],
  ['indent', ofText(indented)],
  ['tojson', tojson],
  ['default', withDefault],
  ['d', withDefault],
  ['map', map],
  ...listFilters,
]);

export function filterNamed(name: string): Filter | undefined {
  return filters.get(name);
}

function indented(value: string, args: Arguments): string {
  const by = indentation(args.at(0, 'width'), args.budget) ?? '    ';
  return indent(value, by, args.flag(1, 'first'), args.flag(2, 'blank'), args.budget);
}

/** A text, or so many spaces; null if there is none. */
function indentation(value: Value | undefined, budget: Budget): string | null {
  if (value === undefined || isNone(value)) return null;
  const width = isText(value) ? value.value.length : isNumber(value) ? value.value : Number.NaN;
  if (Number.isNaN(width)) throw new Error(`an indentation is a number, not ${typeName(value)}`);
  if (width > templateLimits.indentation) throw budget.exceeds('indentation', 'characters of indentation');
  return isText(value) ? value.value : ' '.repeat(Math.max(0, width));
}

function tojson(operand: Value, args: Arguments): Value {
  const indent = indentation(args.at(1, 'indent'), args.budget);
  const separators = args.at(2, 'separators');
  const given = separators !== undefined && isList(separators) ? separators.value.map(({ value }) => value) : [];
  const [item = indent === null ? ', ' : ',', key = ': '] = given.map(String);
  const style = {
    ensureAscii: args.flag(0, 'ensure_ascii'),
    indent,
    separators: [item, key],
    sortKeys: args.flag(3, 'sort_keys'),
  } as const;
  return text(jsonText(operand, style, args.budget));
}

function withDefault(operand: Value, args: Arguments): Value {
  const isMissing = isUndefined(operand) || (args.flag(1, 'boolean') && !isTrue(operand));
  return isMissing ? (args.at(0, 'default_value') ?? text('')) : operand;
}

/** `map('upper')` applies a filter to every element, `map(attribute='name')` takes an attribute of every element. */
function map(operand: Value, args: Arguments): Value {
  const [name, ...rest] = args.positional;
  if (name === undefined) return mapAttribute(operand, args);
  const filterName = printed(name, args.budget);
  const filter = filterNamed(filterName);
  if (filter === undefined) throw new Error(`map with the filter ${filterName} is not supported`);
  const inner = new Arguments(filterName, rest, args.budget);
  return mapElements(operand, args, (element) => filter(element, inner));
}
