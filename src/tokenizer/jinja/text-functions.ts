import type { Budget } from './budget.js';

/** Characters that Python's str.strip() takes for white space, which are not JavaScript's. */
const pythonSpace = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const isSpace = new RegExp(`[${pythonSpace}]`);

export type Side = 'left' | 'right' | 'both';

/** Without the given characters at its ends; null: without white space. */
export function strip(value: string, characters: string | null, side: Side): string {
  const stripped = characters === null ? isSpace : new Set(characters);
  const goes = (unit: string) => (stripped instanceof Set ? stripped.has(unit) : stripped.test(unit));
  let start = 0;
  let end = value.length;
  if (side !== 'right') while (start < end && goes(value[start]!)) start++;
  if (side !== 'left') while (end > start && goes(value[end - 1]!)) end--;
  return value.slice(start, end);
}

/** @param count most replacements; negative: all */
export function replace(value: string, old: string, by: string, count: number, budget: Budget): string {
  budget.searchText(value.length, old.length);
  const places = old === '' ? value.length + 1 : occurrences(value, old);
  const replaced = count < 0 ? places : Math.min(count, places);
  budget.workOnText(value.length + replaced * (by.length - old.length));
  budget.spend(replaced / 4);
  if (old === '') return replaceNothing(value, by, replaced);
  if (replaced === places) return value.replaceAll(old, () => by);
  const parts = value.split(old);
  return [...parts.slice(0, replaced), parts.slice(replaced).join(old)].join(by);
}

/** An empty text is found before every character and at the end. */
function replaceNothing(value: string, by: string, count: number): string {
  const characters = Array.from(value);
  const before = characters.map((character, i) => (i < count ? by + character : character));
  return before.join('') + (characters.length < count ? by : '');
}

/** How often a text occurs in another one, without overlaps. */
export function occurrences(value: string, wanted: string): number {
  let count = 0;
  for (let i = value.indexOf(wanted); i >= 0; i = value.indexOf(wanted, i + wanted.length)) count++;
  return count;
}

/** @param most splits; negative: all */
export function split(value: string, separator: string | null, most: number, budget: Budget): string[] {
  if (separator === '') throw new Error('the separator of split is empty');
  budget.searchText(value.length, separator?.length ?? 1);
  const parts = separator === null ? words(value, most) : pieces(value, separator, most);
  const found: string[] = [];
  for (const part of parts) {
    budget.growList(found.push(part));
  }
  return found;
}

/** Splits from the right, at most so often; the parts are in order. */
export function splitRight(value: string, separator: string | null, most: number, budget: Budget): string[] {
  const parts = split(value, separator, -1, budget);
  if (most < 0 || parts.length <= most + 1) return parts;
  const tail = parts.slice(parts.length - most);
  if (separator !== null) return [parts.slice(0, parts.length - most).join(separator), ...tail];
  throw new Error('rsplit with a limit needs a separator');
}

function* pieces(value: string, separator: string, most: number): Generator<string> {
  let start = 0;
  for (let splits = 0; most < 0 || splits < most; splits++) {
    const end = value.indexOf(separator, start);
    if (end < 0) break;
    yield value.slice(start, end);
    start = end + separator.length;
  }
  yield value.slice(start);
}

function* words(value: string, most: number): Generator<string> {
  const rest = strip(value, null, 'left');
  const word = new RegExp(`[^${pythonSpace}]+`, 'g');
  for (let found = word.exec(rest), splits = 0; found !== null; found = word.exec(rest), splits++) {
    if (most >= 0 && splits >= most) {
      yield rest.slice(found.index);
      return;
    }
    yield found[0];
  }
}

/** "{}", "{0}" and "{name}" of Python's str.format, without format specifications. */
export function format(pattern: string, fieldText: (field: string) => string, budget: Budget): string {
  let length = pattern.length;
  let next = 0;
  return pattern.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (match, field: string | undefined) => {
    if (field === undefined) return match[0]!;
    if (/[^\p{L}\p{N}_]/u.test(field)) throw new Error(`the format {${field}} is not supported`);
    const value = fieldText(field === '' ? String(next++) : field);
    length += value.length;
    budget.workOnText(length);
    return value;
  });
}

export const capitalize = (value: string): string => value.charAt(0).toUpperCase() + value.slice(1).toLowerCase();

/** Every word with a capital, the rest of it without. */
export function titled(value: string, words: RegExp, budget: Budget): string {
  budget.spend(value.length / 2);
  return value.replace(words, capitalize);
}

/** Every line but the first, and no empty ones, unless asked for. */
export function indent(value: string, by: string, first: boolean, blank: boolean, budget: Budget): string {
  const lines = value.split('\n');
  budget.spend(lines.length / 4);
  budget.workOnText(value.length + lines.length * by.length);
  return lines.map((line, i) => ((i > 0 || first) && (line !== '' || blank) ? by + line : line)).join('\n');
}
