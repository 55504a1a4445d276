import { invariant } from '../base/errors.js';

/** Hands out KV blocks by id. The bytes are the backend's; the pool only knows which blocks are whose. */
export class BlockPool {
  readonly #free: number[]; // a stack: the block released last is taken first, while it is warm in the cache
  readonly #taken = new Set<number>();

  constructor(readonly numBlocks: number) {
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  get numFree(): number {
    return this.#free.length;
  }

  /** `count` blocks, or null if fewer are free; then nothing is taken. */
  allocate(count: number): number[] | null {
    if (count > this.#free.length) return null;
    const blocks = this.#free.splice(this.#free.length - count, count).reverse();
    for (const block of blocks) this.#taken.add(block);
    return blocks;
  }

  release(blocks: readonly number[]): void {
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i]!;
      invariant(this.#taken.delete(block), `block ${block} was released twice`);
      this.#free.push(block);
    }
  }

  /** Every block is free or taken, never both. */
  checkIntegrity(): void {
    invariant(new Set(this.#free).size === this.#free.length, 'a block is on the free list twice');
    invariant(this.#free.length + this.#taken.size === this.numBlocks, 'a block is lost');
    for (const block of this.#free) invariant(!this.#taken.has(block), `block ${block} is free and taken`);
  }
}
