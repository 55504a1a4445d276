import { CharTrie } from './char-trie.js';
import { byteFallback, type TokenModel, type UnknownPolicy } from './model.js';
import type { Vocabulary } from './vocabulary.js';
import type { Work } from './work.js';

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
/** UTF-16 units between two pauses, and before tokens are given out. */
const PAUSE = 1024;

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

  *encode(word: string, out: number[]): Work<void> {
    const { length } = word;
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY); // [ends] largest sum up to there
    const starts = new Int32Array(length + 1); // [ends] where the last token of that path begins
    const tokens = new Int32Array(length + 1); // [ends] that token
    best[0] = 0;
    let done = 0; // where the tokens that were given out end
    let reached = 0; // where the last of all tokens met so far ends
    for (let start = 0, pause = PAUSE; start < length; ) {
      if (start >= pause) {
        // All paths lead through here, as no token reaches across.
        if (reached === start && tokens[start] !== UNKNOWN) {
          yield* this.#collect(word, done, start, starts, tokens, out);
          done = start;
        }
        pause = start + PAUSE;
        yield;
      }
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
    yield* this.#collect(word, done, length, starts, tokens, out);

    function relax(start: number, end: number, id: number, score: number): void {
      if (end > reached) reached = end;
      const sum = best[start]! + score;
      if (sum <= best[end]!) return;
      best[end] = sum;
      starts[end] = start;
      tokens[end] = id;
    }
  }

  /** Appends the best path from `start` to `limit`, unknown stretches replaced. */
  *#collect(
    word: string,
    start: number,
    limit: number,
    starts: Int32Array,
    tokens: Int32Array,
    out: number[],
  ): Work<void> {
    const ends: number[] = [];
    for (let end = limit; end > start; end = starts[end]!) {
      if (ends.push(end) % PAUSE === 0) yield;
    }
    let unknownFrom = -1;
    ends.reverse();
    for (let i = 0; i < ends.length; i++) {
      if (i % PAUSE === PAUSE - 1) yield;
      const end = ends[i]!;
      const id = tokens[end]!;
      if (id === UNKNOWN) {
        if (unknownFrom < 0) unknownFrom = starts[end]!;
        continue;
      }
      if (unknownFrom >= 0) this.#unknown(word.slice(unknownFrom, starts[end]!), out);
      unknownFrom = -1;
      out.push(id);
    }
    if (unknownFrom >= 0) this.#unknown(word.slice(unknownFrom, limit), out);
  }

  #unknown(text: string, out: number[]): void {
    const { byteIds, unknownId } = this.#parts;
    const bytes = byteFallback(text, byteIds);
    if (bytes !== null) for (const id of bytes) out.push(id);
    else if (unknownId !== null) out.push(unknownId);
  }
}
