/** A hash slot: hash and id. */
const SLOT = 2;

/**
 * A hash table from texts to ids that looks up parts of longer texts without cutting them out: taking the lines of a
 * merge list apart costs more than everything else about a vocabulary otherwise. Open addressing over one Int32Array;
 * the multiplier is random, so that nobody can prepare a vocabulary whose tokens all collide.
 */
export class TextTable {
  readonly #textOf: (id: number) => string;
  readonly #multiplier = (Math.random() * 2 ** 32) | 1;
  /** [capacity, SLOT]: hash and id; id is -1 where a slot is free. */
  #slots = new Int32Array(64 * SLOT).fill(-1);
  #mask = 63;
  #size = 0;

  /** @param textOf the text of every id that was added */
  constructor(textOf: (id: number) => string) {
    this.#textOf = textOf;
  }

  /** The id of text[start, end), or -1. */
  find(text: string, start = 0, end = text.length): number {
    return this.#slots[this.#slotOf(this.#hash(text, start, end), text, start, end) + 1]!;
  }

  /** Adds a text that is not there yet. */
  add(text: string, id: number): void {
    const hash = this.#hash(text, 0, text.length);
    const slot = this.#slotOf(hash, text, 0, text.length);
    this.#slots[slot] = hash;
    this.#slots[slot + 1] = id;
    this.#size++;
    if (this.#size * 2 > this.#mask) this.#grow();
  }

  #hash(text: string, start: number, end: number): number {
    let hash = end - start;
    for (let i = start; i < end; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), this.#multiplier);
      hash ^= hash >>> 15;
    }
    return hash;
  }

  /** Index of the slot of a text, or of the free slot where it belongs. */
  #slotOf(hash: number, text: string, start: number, end: number): number {
    const slots = this.#slots;
    for (let index = hash & this.#mask; ; index = (index + 1) & this.#mask) {
      const slot = index * SLOT;
      const id = slots[slot + 1]!;
      if (id === -1) return slot;
      if (slots[slot] !== hash) continue;
      const stored = this.#textOf(id);
      if (stored.length === end - start && text.startsWith(stored, start)) return slot;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(old.length * 2).fill(-1);
    this.#mask = this.#mask * 2 + 1;
    for (let slot = 0; slot < old.length; slot += SLOT) {
      if (old[slot + 1] === -1) continue;
      let index = old[slot]! & this.#mask;
      while (this.#slots[index * SLOT + 1] !== -1) index = (index + 1) & this.#mask;
      this.#slots[index * SLOT] = old[slot]!;
      this.#slots[index * SLOT + 1] = old[slot + 1]!;
    }
  }
}
