import type { Token } from './answer.js';

/** A piece of an answer, and the tokens it came from: one, or as many as it takes to make a whole character. */
export interface Piece {
  readonly text: string;
  readonly tokens: readonly Token[];
}

/** Most tokens that one piece is looked for in. A character is at most four bytes, each at most a token. */
const MAX_GROUP = 8;

/**
 * Finds out which tokens an answer's text came from. Text and tokens arrive side by side but not in step: a character
 * may need several tokens, text that might begin a stop string is held back, and the end-of-text token has no text.
 */
export class Aligner {
  #text = '';
  #tokens: Token[] = [];

  /** The pieces that are complete with this text and these tokens. */
  push(text: string, tokens: readonly Token[]): Piece[] {
    this.#text += text;
    this.#tokens.push(...tokens);
    const pieces: Piece[] = [];
    for (let piece = this.#next(); piece !== null; piece = this.#next()) pieces.push(piece);
    return pieces;
  }

  /** What is left at the end of the answer: text whose tokens could not be told apart, or null. */
  flush(): Piece | null {
    const piece = { text: this.#text, tokens: this.#tokens };
    this.#text = '';
    this.#tokens = [];
    return piece.text === '' ? null : piece;
  }

  #next(): Piece | null {
    if (this.#text === '') return null;
    if (this.#tokens.length === 0) return this.#take(this.#text.length, 0); // a server without log-probabilities
    const most = Math.min(this.#tokens.length, MAX_GROUP);
    for (let count = 1; count <= most; count++) {
      const spelt = textOf(this.#tokens.slice(0, count));
      if (spelt === null || spelt === '') continue;
      if (this.#text.startsWith(spelt)) return this.#take(spelt.length, count);
      if (spelt.startsWith(this.#text)) return null; // the rest is held back
      // SentencePiece's decoder leaves out the space before a text's first word.
      const trimmed = spelt.replace(/^ /, '');
      if (trimmed !== '' && this.#text.startsWith(trimmed)) return this.#take(trimmed.length, count);
    }
    return most < MAX_GROUP ? null : this.#take(this.#text.length, this.#tokens.length);
  }

  #take(length: number, count: number): Piece {
    const piece = { text: this.#text.slice(0, length), tokens: this.#tokens.slice(0, count) };
    this.#text = this.#text.slice(length);
    this.#tokens = this.#tokens.slice(count);
    return piece;
  }
}

/** The text of tokens in a row, or null while the last character is incomplete. */
function textOf(tokens: readonly Token[]): string | null {
  if (tokens.some(({ bytes }) => bytes === null)) return tokens.map(({ text }) => text).join('');
  const bytes = Uint8Array.from(tokens.flatMap((token) => token.bytes!));
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
