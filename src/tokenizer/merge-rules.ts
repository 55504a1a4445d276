import { MergeSpace } from './merge-space.js';
import { PairTable } from './pair-table.js';
import { finish, type Work } from './work.js';

/** Positions in the queue's keys take the low 31 bits, ranks the 21 above: together a float64 integer. */
const RANK_UNIT = 2 ** 31;
/** Symbols up to which work space is kept and there are no pauses; a longer text gets its own space. */
const WORD = 1024;
/** Proposals made or judged between two pauses. */
const PAUSE = 1024;

/**
 * The rules of byte pair encoding (Sennrich et al. 2016, arXiv:1508.07909) and how to apply them: of all neighbours
 * that a rule joins, those of the lowest rank are joined first, and of equal ranks the leftmost.
 *
 * Merge lists give every rule a rank of its own; SentencePiece ranks by score, where ties are common.
 */
export class MergeRules {
  /** (left symbol, right symbol) to rule. */
  readonly #rules: PairTable;
  /** [rules] */
  readonly #ranks: number[] = [];
  /** [rules] */
  readonly #results: number[] = [];

  /** Kept between words: a call per word would otherwise spend its time allocating. */
  readonly #space = new MergeSpace(WORD);

  constructor(expectedSize: number) {
    this.#rules = new PairTable(expectedSize);
  }

  /** @param rank 0 to 2^21 - 1; the lowest goes first. */
  add(left: number, right: number, rank: number, result: number): void {
    this.#rules.add(left, right, this.#ranks.length);
    this.#ranks.push(rank);
    this.#results.push(result);
  }

  /**
   * Joins the first `count` of `symbols` in place and returns how many are left. Negative symbols join with nothing.
   * O(n log n), so one word may be a whole book.
   */
  apply(symbols: Int32Array, count: number): number {
    return finish(this.work(symbols, count));
  }

  /** The same, as work in pieces. */
  *work(symbols: Int32Array, count: number): Work<number> {
    if (count < 2) return count;
    const isLong = count > WORD;
    const space = isLong ? new MergeSpace(count) : this.#space; // empty after every word
    const { next, previous } = space;
    for (let i = 0; i < count; i++) {
      next[i] = i + 1;
      previous[i] = i - 1;
      if (i > 0) this.#propose(symbols, i - 1, i, space);
      if (isLong && i % PAUSE === 0) yield;
    }

    let judged = 0;
    for (let key = space.pop(); key >= 0; key = space.pop()) {
      if (isLong && ++judged % PAUSE === 0) yield;
      const position = key % RANK_UNIT;
      if (symbols[position] === REMOVED) continue;
      const right = next[position]!;
      if (right === count) continue;
      const rule = this.#rule(symbols[position]!, symbols[right]!);
      // The neighbours were joined with something else since this was proposed.
      if (rule < 0 || this.#ranks[rule] !== (key - position) / RANK_UNIT) continue;

      symbols[position] = this.#results[rule]!;
      symbols[right] = REMOVED;
      const following = next[right]!;
      next[position] = following;
      if (following < count) {
        previous[following] = position;
        this.#propose(symbols, position, following, space);
      }
      const preceding = previous[position]!;
      if (preceding >= 0) this.#propose(symbols, preceding, position, space);
    }

    let kept = 0;
    for (let i = 0; i < count; i = next[i]!) {
      symbols[kept++] = symbols[i]!;
      if (isLong && kept % (PAUSE * 16) === 0) yield;
    }
    return kept;
  }

  #rule(left: number, right: number): number {
    return left < 0 || right < 0 ? -1 : this.#rules.get(left, right);
  }

  #propose(symbols: Int32Array, left: number, right: number, space: MergeSpace): void {
    const rule = this.#rule(symbols[left]!, symbols[right]!);
    if (rule >= 0) space.push(this.#ranks[rule]! * RANK_UNIT + left);
  }
}

/** A symbol that was joined into the one before it. */
const REMOVED = -2;
