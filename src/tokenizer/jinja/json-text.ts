import type { Budget } from './budget.js';
import type { Value } from './library.js';
import { Pieces, printedNumber } from './python-text.js';
import {
  isBoolean,
  isDictionary,
  isList,
  isNone,
  isNumber,
  isText,
  isUndefined,
  type NumberValue,
  typeName,
} from './values.js';

/** The arguments of Python's json.dumps that the filter `tojson` takes. */
export interface JsonStyle {
  readonly ensureAscii: boolean;
  /** What a level is indented by, or null for one line. */
  readonly indent: string | null;
  readonly separators: readonly [item: string, key: string];
  readonly sortKeys: boolean;
}

/** JSON of a value as Python's json.dumps writes it; undefined values are null. */
export function jsonText(value: Value, style: JsonStyle, budget: Budget): string {
  const out = new Pieces(budget);
  write(value, style, '\n', out);
  return out.toString();
}

/** @param lineBreak line break and indentation of the line that the value stands in */
function write(value: Value, style: JsonStyle, lineBreak: string, out: Pieces): void {
  if (isText(value)) out.push(quoted(value.value, style));
  else if (isNone(value) || isUndefined(value)) out.push('null');
  else if (isBoolean(value)) out.push(String(value.value));
  else if (isNumber(value)) out.push(jsonNumber(value));
  else if (isList(value)) {
    writeAll(value.value, ['[', ']'], style, lineBreak, out, (element, inner) => write(element, style, inner, out));
  } else if (isDictionary(value)) {
    const entries = [...value.value].map(([key, entry]) => [String(key), entry] as const);
    if (style.sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    writeAll(entries, ['{', '}'], style, lineBreak, out, ([key, entry], inner) => {
      out.push(quoted(key, style) + style.separators[1]);
      write(entry, style, inner, out);
    });
  } else throw new Error(`a ${typeName(value)} cannot be written as JSON`);
}

function writeAll<T>(
  elements: readonly T[],
  [open, close]: readonly [string, string],
  { indent, separators }: JsonStyle,
  lineBreak: string,
  out: Pieces,
  writeOne: (element: T, lineBreak: string) => void,
): void {
  const inner = lineBreak + (indent ?? '');
  out.push(open);
  out.budget.enter();
  elements.forEach((element, i) => {
    if (i > 0) out.push(separators[0]);
    if (indent !== null) out.push(inner);
    writeOne(element, inner);
  });
  out.budget.leave();
  if (indent !== null && elements.length > 0) out.push(lineBreak);
  out.push(close);
}

function quoted(value: string, { ensureAscii }: JsonStyle): string {
  const json = JSON.stringify(value);
  if (!ensureAscii) return json;
  return json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function jsonNumber(value: NumberValue): string {
  const number = value.value;
  if (Number.isFinite(number)) return printedNumber(value);
  return Number.isNaN(number) ? 'NaN' : number > 0 ? 'Infinity' : '-Infinity';
}
