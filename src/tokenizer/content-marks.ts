import { EngineError } from '../base/errors.js';

/** A rendered chat, ready to be encoded. */
export interface ChatPrompt {
  readonly text: string;
  /** [text.length] 1 for brackets of special tokens that are the content's; null if there are none. */
  readonly content: Uint8Array | null;
}

/**
 * Tells, in the output of a chat template, what a user wrote from what the template wrote.
 *
 * Special tokens begin, name and end turns; spelled out in a message they must stay text. But a template gives back one
 * string, and may trim, cut, search and join what it is given. So every character of the messages that could be a
 * bracket of a special token (one that is no letter, digit, quote or space: `<`, `|`, `[`) is replaced by a character of
 * Unicode's private use area that occurs nowhere else. Templates carry these along like any other character, and where
 * they stand in the output, the user's brackets stand. A special token is real where all of its brackets are the
 * template's, so that `'<|' + message.role + '|>'` is one, and content cannot add up to one in any way.
 */
export class ContentMarks {
  readonly #specialTexts: readonly string[];
  readonly #markOf: ReadonlyMap<string, string>;
  readonly #bracketOf: ReadonlyMap<string, string>;
  readonly #brackets: RegExp;

  /**
   * @param specialTexts special tokens as they are spelled
   * @param input        everything that goes into the rendering; its characters cannot be marks
   */
  constructor(specialTexts: readonly string[], input: readonly string[]) {
    const brackets = [...new Set(specialTexts.flatMap(bracketsOf))];
    const taken = new Set(input.flatMap((text) => text.match(markOrEscape) ?? []).map(unescaped));
    const marks = privateUse.filter((character) => !taken.has(character));
    if (marks.length < brackets.length) {
      const expected = 'messages that leave some characters from U+E000 to U+F8FF unused';
      throw new EngineError('OPTION_INVALID', { option: 'messages', value: 'private use characters', expected });
    }
    this.#specialTexts = specialTexts;
    this.#markOf = new Map(brackets.map((bracket, i) => [bracket, marks[i]!]));
    this.#bracketOf = new Map(brackets.map((bracket, i) => [marks[i]!, bracket]));
    this.#brackets = new RegExp(brackets.map(escaped).join('|') || '(?!)', 'g');
  }

  /** Whether a text has anything to mark. */
  occurIn(text: string): boolean {
    return text.search(this.#brackets) >= 0;
  }

  /**
   * A copy of JSON values with all their texts marked, but for places where one of the `literals` stands: texts such as
   * "</think>" that the template looks for. Literals count if they have a letter and hold no special token.
   */
  mark<T>(value: T, literals: readonly string[]): T {
    const isKept = (literal: string) =>
      /\p{L}/u.test(literal) && !this.#specialTexts.some((special) => literal.includes(special));
    const kept = literals.filter(isKept).sort((a, b) => b.length - a.length);
    const pattern = new RegExp([...kept.map(escaped), this.#brackets.source].join('|'), 'g');
    return mapTexts(value, (text) => text.replace(pattern, (found) => this.#markOf.get(found) ?? found)) as T;
  }

  /** The prompt that an output with marks stands for. JSON and Python's repr() may have escaped them. */
  read(output: string): ChatPrompt {
    const parts: string[] = [];
    const marked: number[] = [];
    let length = 0;
    const append = (part: string) => {
      length += part.length;
      parts.push(part);
    };
    let start = 0;
    for (const { 0: found, index } of output.matchAll(markOrEscape)) {
      const bracket = this.#bracketOf.get(unescaped(found));
      if (bracket === undefined) continue;
      append(output.slice(start, index));
      marked.push(length);
      append(found.length > 1 && bracket > '\x7e' ? jsonEscape(bracket) : bracket);
      start = index + found.length;
    }
    append(output.slice(start));
    const content = new Uint8Array(length);
    for (const place of marked) content[place] = 1;
    return { text: parts.join(''), content };
  }
}

const markOrEscape = /[\ue000-\uf8ff]|\\u(?:e[0-9a-f]{3}|f[0-8][0-9a-f]{2})/g;
const unescaped = (found: string) =>
  found.length > 1 ? String.fromCharCode(Number.parseInt(found.slice(2), 16)) : found;
const jsonEscape = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
const privateUse: readonly string[] = Array.from({ length: 0xf900 - 0xe000 }, (_, i) =>
  String.fromCharCode(0xe000 + i),
);

/** What marks a special token. Quotes and backslashes are left out: JSON escapes them. */
function bracketsOf(special: string): string[] {
  const brackets = special.match(/[^\p{L}\p{N}_\s'"\\\ud800-\udfff]/gu);
  return brackets ?? special.match(/[^\s'"\\\ud800-\udfff]/g) ?? [];
}

const escaped = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** All texts in JSON values: values and keys. */
export function textsIn(value: unknown): string[] {
  const texts: string[] = [];
  mapTexts(value, (text) => {
    texts.push(text);
    return text;
  });
  return texts;
}

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((element) => mapTexts(element, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [change(key), mapTexts(entry, change)]));
}
