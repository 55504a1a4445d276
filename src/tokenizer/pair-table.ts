/**
 * A hash table from pairs of non-negative ints to a non-negative int: open addressing over one Int32Array.
 * A Map keyed by numbers or strings needs five times the memory and building time, which for a vocabulary of
 * 152k tokens decides whether a model loads in under a second. The multipliers are random, so that nobody can prepare
 * pairs that all collide.
 */
export class PairTable {
  /** [capacity, 3]: left, right, value; left is -1 where a slot is free. */
  #slots: Int32Array;
  #mask: number;
  #size = 0;
  readonly #leftMultiplier = (Math.random() * 2 ** 32) | 1;
  readonly #rightMultiplier = (Math.random() * 2 ** 32) | 1;

  /** @param expectedSize entries it will hold; it grows beyond that. */
  constructor(expectedSize: number) {
    let capacity = 16;
    while (capacity < expectedSize * 2) capacity *= 2;
    this.#slots = new Int32Array(capacity * 3).fill(-1);
    this.#mask = capacity - 1;
  }

  get size(): number {
    return this.#size;
  }

  /** The value stored for a pair, or -1. */
  get(left: number, right: number): number {
    const slot = this.#find(left, right);
    return this.#slots[slot] === -1 ? -1 : this.#slots[slot + 2]!;
  }

  /** Stores a value unless the pair has one already: of two equal merge rules the earlier one counts. */
  add(left: number, right: number, value: number): void {
    const slot = this.#find(left, right);
    if (this.#slots[slot] !== -1) return;
    this.#slots[slot] = left;
    this.#slots[slot + 1] = right;
    this.#slots[slot + 2] = value;
    this.#size++;
    if (this.#size * 2 > this.#mask) this.#grow();
  }

  /** Index of the pair's slot, or of the free slot where it belongs. */
  #find(left: number, right: number): number {
    const slots = this.#slots;
    let hash = Math.imul(left, this.#leftMultiplier) ^ Math.imul(right, this.#rightMultiplier);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    let index = (hash ^ (hash >>> 13)) & this.#mask;
    for (;;) {
      const slot = index * 3;
      const storedLeft = slots[slot]!;
      if (storedLeft === -1 || (storedLeft === left && slots[slot + 1] === right)) return slot;
      index = (index + 1) & this.#mask;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(old.length * 2).fill(-1);
    this.#mask = this.#mask * 2 + 1;
    for (let slot = 0; slot < old.length; slot += 3) {
      if (old[slot] === -1) continue;
      const target = this.#find(old[slot]!, old[slot + 1]!);
      this.#slots.set(old.subarray(slot, slot + 3), target);
    }
  }
}
