import { PairTable } from './pair-table.js';

/** Positions in the queue's keys take the low 31 bits, ranks the 21 above: together a float64 integer. */
const RANK_UNIT = 2 ** 31;
/** Symbols up to which work space is kept; a longer text gets its own and gives it back. */
const WORD = 1024;

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

  // Work space of apply(), kept between words: a call per word would otherwise spend its time allocating.
  #next = new Int32Array(WORD); // [symbols] following symbol, or `count`
  #previous = new Int32Array(WORD); // [symbols]
  #queue = new Float64Array(WORD * 2); // binary heap of rank * RANK_UNIT + position
  #queueLength = 0;

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
    if (count < 2) return count;
    this.#prepare(count);
    const next = this.#next;
    const previous = this.#previous;
    for (let i = 0; i < count - 1; i++) this.#propose(symbols, i, i + 1);

    while (this.#queueLength > 0) {
      const key = this.#pop();
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
        this.#propose(symbols, position, following);
      }
      const preceding = previous[position]!;
      if (preceding >= 0) this.#propose(symbols, preceding, position);
    }

    let kept = 0;
    for (let i = 0; i < count; i = next[i]!) symbols[kept++] = symbols[i]!;
    if (count > WORD) this.#reserve(WORD);
    return kept;
  }

  #rule(left: number, right: number): number {
    return left < 0 || right < 0 ? -1 : this.#rules.get(left, right);
  }

  #propose(symbols: Int32Array, left: number, right: number): void {
    const rule = this.#rule(symbols[left]!, symbols[right]!);
    if (rule >= 0) this.#push(this.#ranks[rule]! * RANK_UNIT + left);
  }

  #reserve(count: number): void {
    this.#next = new Int32Array(count);
    this.#previous = new Int32Array(count);
    // A pair has one proposal at first, and every merge turns one into two at most.
    this.#queue = new Float64Array(count * 2);
  }

  #prepare(count: number): void {
    if (count > WORD) this.#reserve(count);
    this.#queueLength = 0;
    for (let i = 0; i < count; i++) {
      this.#next[i] = i + 1;
      this.#previous[i] = i - 1;
    }
  }

  #push(key: number): void {
    const queue = this.#queue;
    let index = this.#queueLength++;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (queue[parent]! <= key) break;
      queue[index] = queue[parent]!;
      index = parent;
    }
    queue[index] = key;
  }

  #pop(): number {
    const queue = this.#queue;
    const top = queue[0]!;
    const key = queue[--this.#queueLength]!;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= this.#queueLength) break;
      if (child + 1 < this.#queueLength && queue[child + 1]! < queue[child]!) child++;
      if (queue[child]! >= key) break;
      queue[index] = queue[child]!;
      index = child;
    }
    queue[index] = key;
    return top;
  }
}

/** A symbol that was joined into the one before it. */
const REMOVED = -2;
