import type { MergeRules } from './merge-rules.js';
import { byteFallback, type TokenModel, type UnknownPolicy } from './model.js';
import type { Work } from './work.js';

export interface BpeParts extends UnknownPolicy {
  readonly rules: MergeRules;
  /** Symbol of a single character, or -1. */
  readonly symbolOf: (character: string) => number;
  /** Symbols below this are token ids; from here on, characters that are no token but part of longer ones. */
  readonly vocabularySize: number;
  /** Characters of the symbols from `vocabularySize` on. */
  readonly partialCharacters?: readonly string[];
  /** Put before every character of a word but the first before it is looked up. */
  readonly continuingPrefix?: string;
  /** Put after the last character of a word before it is looked up. */
  readonly wordSuffix?: string;
  /** Tokens that a whole word becomes without a look at the merges. */
  readonly wholeWord?: (word: string) => number | null;
}

/** UTF-8 bytes of one UTF-16 code unit, at most. */
const BYTES_PER_UNIT = 3;
/** Symbols of a word that are kept between words. */
const WORD = 768;
/** Characters or tokens of a longer one between two pauses. */
const PAUSE = 1024;
/** Symbols of characters below this are looked up once: those of GPT-2's alphabet, and of most alphabets. */
const TABLE = 1 << 11;
/** In the table: not looked up yet. */
const NOT_KNOWN = -2;

/** Byte pair encoding: characters become symbols, and symbols are joined by the merge rules. */
export class BpeModel implements TokenModel {
  readonly #parts: BpeParts;
  readonly #space = new Int32Array(WORD); // [symbols of a word]
  readonly #symbols = new Int32Array(TABLE).fill(NOT_KNOWN); // [characters]

  constructor(parts: BpeParts) {
    this.#parts = parts;
  }

  *encode(word: string, out: number[]): Work<void> {
    const { rules, vocabularySize, partialCharacters, wholeWord, byteIds, unknownId, fuseUnknown } = this.#parts;
    const whole = wholeWord?.(word) ?? null;
    if (whole !== null) {
      out.push(whole);
      return;
    }
    const needed = word.length * BYTES_PER_UNIT;
    // A pause may bring other words, so only those without one share their space.
    const isLong = needed > WORD;
    const symbols = isLong ? new Int32Array(needed) : this.#space;

    let count = 0;
    let afterUnknown = false;
    for (let start = 0, pause = PAUSE; start < word.length; ) {
      const end = start + (word.codePointAt(start)! > 0xffff ? 2 : 1);
      const symbol = this.#symbolAt(word, start, end);
      if (symbol >= 0) {
        symbols[count++] = symbol;
        afterUnknown = false;
      } else {
        const bytes = byteFallback(this.#characterAt(word, start, end), byteIds);
        if (bytes !== null) for (const id of bytes) symbols[count++] = id;
        else if (unknownId !== null && !(afterUnknown && fuseUnknown)) symbols[count++] = unknownId;
        afterUnknown = bytes === null;
      }
      start = end;
      if (!isLong || start < pause) continue;
      pause = start + PAUSE;
      yield;
    }

    count = isLong ? yield* rules.work(symbols, count) : rules.apply(symbols, count);
    for (let i = 0; i < count; i++) {
      const symbol = symbols[i]!;
      if (symbol < vocabularySize) out.push(symbol);
      else this.#fallBack(partialCharacters![symbol - vocabularySize]!, i > 0, out);
      if (isLong && i % PAUSE === 0) yield;
    }
  }

  /** The symbol of the character word[start, end), or -1. */
  #symbolAt(word: string, start: number, end: number): number {
    const { symbolOf, continuingPrefix, wordSuffix } = this.#parts;
    const code = word.charCodeAt(start);
    if (code >= TABLE || continuingPrefix || wordSuffix) return symbolOf(this.#characterAt(word, start, end));
    const known = this.#symbols[code]!;
    if (known !== NOT_KNOWN) return known;
    const symbol = symbolOf(word[start]!);
    this.#symbols[code] = symbol;
    return symbol;
  }

  /** The character word[start, end) as it is looked up. */
  #characterAt(word: string, start: number, end: number): string {
    const { continuingPrefix, wordSuffix } = this.#parts;
    let character = word.slice(start, end);
    if (continuingPrefix && start > 0) character = continuingPrefix + character;
    if (wordSuffix && end === word.length) character += wordSuffix;
    return character;
  }

  /** A character that is part of tokens but joined none here. */
  #fallBack(character: string, insideWord: boolean, out: number[]): void {
    const { byteIds, unknownId, fuseUnknown } = this.#parts;
    const bytes = byteFallback(character, byteIds);
    if (bytes !== null) out.push(...bytes);
    else if (unknownId !== null && !(fuseUnknown && insideWord && out.at(-1) === unknownId)) out.push(unknownId);
  }
}
