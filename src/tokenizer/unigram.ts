import { CharTrie } from './char-trie.js';
import { byteFallback, type TokenModel, type UnknownPolicy } from './model.js';
import type { Vocabulary } from './vocabulary.js';

export interface UnigramParts extends UnknownPolicy {
  readonly vocabulary: Vocabulary;
  /** [vocabulary size] log probabilities. */
  readonly scores: ArrayLike<number>;
  /** Tokens that text may become. */
  readonly mayUse: (id: number) => boolean;
}

/** How much less likely than the least likely token an unknown character is; SentencePiece's constant. */
const UNKNOWN_PENALTY = 10;
/** Marks a character that no token covers. */
const UNKNOWN = -1;

/**
 * The unigram language model of Kudo 2018 (arXiv:1804.10959): of all ways to cut a word into tokens, the one whose
 * scores have the largest sum, found by Viterbi over the ends of tokens.
 */
export class UnigramModel implements TokenModel {
  readonly #parts: UnigramParts;
  readonly #trie: CharTrie;
  readonly #unknownScore: number;

  constructor(parts: UnigramParts) {
    const { vocabulary, scores, mayUse } = parts;
    this.#parts = parts;
    this.#trie = new CharTrie(vocabulary.size * 4);
    let lowest = Number.POSITIVE_INFINITY;
    for (let id = 0; id < vocabulary.size; id++) {
      const text = vocabulary.text(id);
      if (text === null || !mayUse(id)) continue;
      this.#trie.insert(text, id);
      lowest = Math.min(lowest, scores[id]!);
    }
    this.#unknownScore = (lowest === Number.POSITIVE_INFINITY ? 0 : lowest) - UNKNOWN_PENALTY;
  }

  encode(word: string, out: number[]): void {
    const { length } = word;
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY); // [ends] largest sum up to there
    const starts = new Int32Array(length + 1); // [ends] where the last token of that path begins
    const tokens = new Int32Array(length + 1); // [ends] that token
    best[0] = 0;
    for (let start = 0; start < length; ) {
      const width = word.codePointAt(start)! > 0xffff ? 2 : 1;
      let coversCharacter = false;
      for (let node = CharTrie.root, end = start; end < length; ) {
        node = this.#trie.child(node, word.charCodeAt(end));
        if (node < 0) break;
        end++;
        const id = this.#trie.value(node);
        if (id < 0) continue;
        coversCharacter ||= end === start + width;
        relax(start, end, id, this.#parts.scores[id]!);
      }
      if (!coversCharacter) relax(start, start + width, UNKNOWN, this.#unknownScore);
      start += width;
    }
    this.#collect(word, starts, tokens, out);

    function relax(start: number, end: number, id: number, score: number): void {
      const sum = best[start]! + score;
      if (sum <= best[end]!) return;
      best[end] = sum;
      starts[end] = start;
      tokens[end] = id;
    }
  }

  /** Appends the best path, unknown stretches replaced. */
  #collect(word: string, starts: Int32Array, tokens: Int32Array, out: number[]): void {
    const ends: number[] = [];
    for (let end = word.length; end > 0; end = starts[end]!) ends.push(end);
    let unknownFrom = -1;
    for (const end of ends.reverse()) {
      const id = tokens[end]!;
      if (id === UNKNOWN) {
        if (unknownFrom < 0) unknownFrom = starts[end]!;
        continue;
      }
      if (unknownFrom >= 0) this.#unknown(word.slice(unknownFrom, starts[end]!), out);
      unknownFrom = -1;
      out.push(id);
    }
    if (unknownFrom >= 0) this.#unknown(word.slice(unknownFrom), out);
  }

  #unknown(text: string, out: number[]): void {
    const { byteIds, unknownId } = this.#parts;
    const bytes = byteFallback(text, byteIds);
    if (bytes !== null) for (const id of bytes) out.push(id);
    else if (unknownId !== null) out.push(unknownId);
  }
}
