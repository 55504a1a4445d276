import type { MergeRules } from './merge-rules.js';
import { byteFallback, type TokenModel, type UnknownPolicy } from './model.js';

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

/** Byte pair encoding: characters become symbols, and symbols are joined by the merge rules. */
export class BpeModel implements TokenModel {
  readonly #parts: BpeParts;
  readonly #space = new Int32Array(768); // [symbols of a word]

  constructor(parts: BpeParts) {
    this.#parts = parts;
  }

  encode(word: string, out: number[]): void {
    const { rules, vocabularySize, partialCharacters, wholeWord } = this.#parts;
    const whole = wholeWord?.(word) ?? null;
    if (whole !== null) {
      out.push(whole);
      return;
    }
    const needed = word.length * BYTES_PER_UNIT;
    const symbols = needed <= this.#space.length ? this.#space : new Int32Array(needed);
    const count = rules.apply(symbols, this.#split(word, symbols));
    for (let i = 0; i < count; i++) {
      const symbol = symbols[i]!;
      if (symbol < vocabularySize) out.push(symbol);
      else this.#fallBack(partialCharacters![symbol - vocabularySize]!, i > 0, out);
    }
  }

  /** Fills `symbols` with the characters of a word; returns how many there are. */
  #split(word: string, symbols: Int32Array): number {
    const { symbolOf, continuingPrefix, wordSuffix, byteIds, unknownId, fuseUnknown } = this.#parts;
    let count = 0;
    let afterUnknown = false;
    for (let start = 0; start < word.length; ) {
      const end = start + (word.codePointAt(start)! > 0xffff ? 2 : 1);
      let character = word.slice(start, end);
      if (continuingPrefix && start > 0) character = continuingPrefix + character;
      if (wordSuffix && end === word.length) character += wordSuffix;
      start = end;
      const symbol = symbolOf(character);
      if (symbol >= 0) {
        symbols[count++] = symbol;
        afterUnknown = false;
        continue;
      }
      const bytes = byteFallback(character, byteIds);
      if (bytes !== null) for (const id of bytes) symbols[count++] = id;
      else if (unknownId !== null && !(afterUnknown && fuseUnknown)) symbols[count++] = unknownId;
      afterUnknown = bytes === null;
    }
    return count;
  }

  /** A character that is part of tokens but joined none here. */
  #fallBack(character: string, insideWord: boolean, out: number[]): void {
    const { byteIds, unknownId, fuseUnknown } = this.#parts;
    const bytes = byteFallback(character, byteIds);
    if (bytes !== null) out.push(...bytes);
    else if (unknownId !== null && !(fuseUnknown && insideWord && out.at(-1) === unknownId)) out.push(unknownId);
  }
}
