import { fromByteAlphabet } from './byte-alphabet.js';
import { byteOfToken } from './model.js';
import { decodeStrict } from './utf8.js';
import type { Vocabulary } from './vocabulary.js';

/** What a token adds to the text: text, or bytes where these alone are no text. */
export type Piece = string | Uint8Array;

/** Changes the spelling of a token on its way to text; `first` is the first token of the text. */
export type SpellingStep = (spelling: string, first: boolean) => string;

/** How token spellings become text. */
export interface DecodingRules {
  /** In order; for tokens that are no raw text. */
  readonly steps: readonly SpellingStep[];
  /** How what the steps leave stands for bytes: GPT-2's alphabet, <0xE2> for a byte, or not at all. */
  readonly bytes: 'alphabet' | 'fallback' | 'none';
  /** Removed from the start of the text, at most so often. */
  readonly stripStart?: { readonly character: string; readonly count: number };
  /** Ends a word: a space follows before the next token. */
  readonly wordSuffix?: string;
}

/** Texts of tokens, worked out when first needed. */
export class TokenTexts {
  readonly rules: DecodingRules;
  readonly #vocabulary: Vocabulary;
  /** Tokens whose spelling is their text: special tokens and the like. */
  readonly #isRaw: (id: number) => boolean;
  readonly #pieces: (Piece | undefined)[]; // [vocabulary size]

  constructor(vocabulary: Vocabulary, rules: DecodingRules, isRaw: (id: number) => boolean) {
    this.#vocabulary = vocabulary;
    this.rules = rules;
    this.#isRaw = isRaw;
    this.#pieces = new Array(vocabulary.size).fill(undefined);
  }

  /** What a token adds; an id without a token adds nothing. */
  piece(id: number, first = false): Piece {
    if (first) return this.#spell(id, true);
    const known = this.#pieces[id];
    if (known !== undefined) return known;
    const piece = this.#spell(id, false);
    if (this.#vocabulary.text(id) !== null) this.#pieces[id] = piece;
    return piece;
  }

  /** Whether a space comes between this token and the next. */
  endsWord(id: number): boolean {
    const { wordSuffix } = this.rules;
    return wordSuffix !== undefined && (this.#vocabulary.text(id)?.endsWith(wordSuffix) ?? false);
  }

  #spell(id: number, first: boolean): Piece {
    const { steps, bytes } = this.rules;
    let spelling = this.#vocabulary.text(id);
    if (spelling === null) return '';
    const raw = this.#isRaw(id);
    if (!raw && bytes === 'fallback') {
      const byte = byteOfToken(spelling);
      if (byte !== null) return pieceOf(Uint8Array.of(byte));
    }
    for (const step of steps) spelling = step(spelling, first);
    const spelled = !raw && bytes === 'alphabet' ? fromByteAlphabet(spelling) : null;
    return spelled === null ? spelling : pieceOf(spelled);
  }
}

function pieceOf(bytes: Uint8Array): Piece {
  return decodeStrict(bytes) ?? bytes;
}
