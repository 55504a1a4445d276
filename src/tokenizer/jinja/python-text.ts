import type { Budget } from './budget.js';
import type { Value } from './library.js';
import {
  isBoolean,
  isDictionary,
  isFloat,
  isList,
  isNone,
  isNumber,
  isText,
  isTuple,
  isUndefined,
  keyValue,
  type NumberValue,
  typeName,
} from './values.js';

/**
 * Text of a value as Python's str() writes it, which is what models were trained on: True, None, ['a', 'b'].
 *
 * A list may hold the same list many times over, so that its text is exponentially longer than itself: the pieces are
 * counted as they are written.
 */
export function printed(value: Value, budget: Budget): string {
  if (isText(value)) return value.value;
  if (isUndefined(value)) return '';
  const pieces = new Pieces(budget);
  writeRepr(value, pieces);
  return pieces.toString();
}

/** Text in pieces, within a budget. */
export class Pieces {
  #pieces: string[] = [];
  #length = 0;

  constructor(readonly budget: Budget) {}

  push(piece: string): void {
    this.#length += piece.length;
    this.budget.spend(1);
    this.budget.workOnText(piece.length);
    this.budget.passText(this.#length);
    this.#pieces.push(piece);
  }

  toString(): string {
    return this.#pieces.join('');
  }
}

/** Writes Python's repr() of a value. */
function writeRepr(value: Value, out: Pieces): void {
  if (isText(value)) out.push(quoted(value.value));
  else if (isNone(value)) out.push('None');
  else if (isBoolean(value)) out.push(value.value ? 'True' : 'False');
  else if (isNumber(value)) out.push(printedNumber(value));
  else if (isList(value)) {
    const single = isTuple(value) && value.value.length === 1;
    const brackets = isTuple(value) ? (['(', single ? ',)' : ')'] as const) : (['[', ']'] as const);
    writeAll(value.value, brackets, out, (element) => writeRepr(element, out));
  } else if (isDictionary(value)) {
    writeAll([...value.value], ['{', '}'], out, ([key, entry]) => {
      writeRepr(keyValue(key), out);
      out.push(': ');
      writeRepr(entry, out);
    });
  } else out.push(isUndefined(value) ? 'Undefined' : `<${typeName(value)}>`);
}

/** Elements between brackets, separated by commas. */
function writeAll<T>(
  elements: readonly T[],
  [open, close]: readonly [string, string],
  out: Pieces,
  write: (element: T) => void,
): void {
  out.push(open);
  out.budget.enter();
  elements.forEach((element, i) => {
    if (i > 0) out.push(', ');
    write(element);
  });
  out.budget.leave();
  out.push(close);
}

export function printedNumber(value: NumberValue): string {
  const number = value.value;
  if (!Number.isFinite(number)) return Number.isNaN(number) ? 'nan' : number > 0 ? 'inf' : '-inf';
  if (!isFloat(value)) return Number.isSafeInteger(number) ? String(number) : BigInt(Math.trunc(number)).toString();
  if (Object.is(number, -0)) return '-0.0';
  const magnitude = Math.abs(number);
  // Python changes to exponents at other sizes than JavaScript, and writes two digits of them.
  if (magnitude !== 0 && (magnitude < 1e-4 || magnitude >= 1e16)) {
    return number.toExponential().replace(/e([-+])(\d)$/, 'e$10$2');
  }
  return Number.isInteger(number) ? number.toFixed(1) : String(number);
}

const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function quoted(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  // \p{C} and the separators are what Python calls not printable.
  const escaped = value.replace(/[\\'\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (character) => {
    if (character === "'") return quote === "'" ? "\\'" : character;
    return escapes[character] ?? escapedCode(character.codePointAt(0)!);
  });
  return quote + escaped + quote;
}

function escapedCode(code: number): string {
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
}
