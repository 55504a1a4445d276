/** What merging a word needs besides its symbols: who follows whom, and a queue of proposals, the smallest first. */
export class MergeSpace {
  /** [symbols] following symbol, or their number */
  readonly next: Int32Array;
  /** [symbols] */
  readonly previous: Int32Array;
  /** Binary heap. A pair has one proposal at first, and every merge turns one into two at most. */
  readonly #queue: Float64Array;
  #length = 0;

  /** @param size symbols of the longest word */
  constructor(size: number) {
    this.next = new Int32Array(size);
    this.previous = new Int32Array(size);
    this.#queue = new Float64Array(size * 2);
  }

  push(key: number): void {
    const queue = this.#queue;
    let index = this.#length++;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (queue[parent]! <= key) break;
      queue[index] = queue[parent]!;
      index = parent;
    }
    queue[index] = key;
  }

  /** The smallest key, or -1 if there is none. */
  pop(): number {
    if (this.#length === 0) return -1;
    const queue = this.#queue;
    const top = queue[0]!;
    const key = queue[--this.#length]!;
    const length = this.#length;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= length) break;
      if (child + 1 < length && queue[child + 1]! < queue[child]!) child++;
      if (queue[child]! >= key) break;
      queue[index] = queue[child]!;
      index = child;
    }
    queue[index] = key;
    return top;
  }
}
