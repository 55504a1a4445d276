import type { TokenModel } from './model.js';
import type { Vocabulary } from './vocabulary.js';
import type { Work } from './work.js';

export interface WordPieceParts {
  readonly vocabulary: Vocabulary;
  readonly unknownId: number;
  /** Marks tokens that continue a word: "##" in BERT. */
  readonly continuingPrefix: string;
  /** Words of more characters are unknown. */
  readonly maxCharacters: number;
}

/** WordPiece (Wu et al. 2016, arXiv:1609.08144, section 4.1): the longest token first; a word with a gap is unknown. */
export class WordPieceModel implements TokenModel {
  readonly #parts: WordPieceParts;

  constructor(parts: WordPieceParts) {
    this.#parts = parts;
  }

  *encode(word: string, out: number[]): Work<void> {
    const { vocabulary, unknownId, continuingPrefix, maxCharacters } = this.#parts;
    // A character has two units at most.
    if (word.length > maxCharacters * 2) {
      out.push(unknownId);
      return;
    }
    const characters = Array.from(word);
    const ids: number[] = [];
    let known = characters.length <= maxCharacters;
    for (let start = 0; known && start < characters.length; ) {
      let text = (start > 0 ? continuingPrefix : '') + characters.slice(start).join('');
      let end = characters.length;
      let id = vocabulary.id(text);
      while (id === null && end > start + 1) {
        end--;
        text = text.slice(0, -characters[end]!.length);
        id = vocabulary.id(text);
      }
      if (id === null) known = false;
      else ids.push(id);
      start = end;
      yield;
    }
    if (known) out.push(...ids);
    else out.push(unknownId);
  }
}

/** Every word is a token or unknown. */
export class WordLevelModel implements TokenModel {
  readonly #vocabulary: Vocabulary;
  readonly #unknownId: number | null;

  constructor(vocabulary: Vocabulary, unknownId: number | null) {
    this.#vocabulary = vocabulary;
    this.#unknownId = unknownId;
  }

  // biome-ignore lint/correctness/useYield: a look-up is one piece
  *encode(word: string, out: number[]): Work<void> {
    const id = this.#vocabulary.id(word) ?? this.#unknownId;
    if (id !== null) out.push(id);
  }
}
