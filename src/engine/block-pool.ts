import { invariant } from '../base/errors.js';

/**
 * Hands out KV blocks by id and counts who refers to them. The bytes are the backend's; the pool only knows which blocks
 * are whose. A block of the prefix cache that nobody refers to is idle: it keeps its content until it is needed, the
 * least recently used first.
 */
export class BlockPool {
  readonly #references: Int32Array; // [numBlocks]
  readonly #cached: Uint8Array; // [numBlocks] 1: the prefix cache knows its content
  readonly #free: number[]; // a stack: the block released last is taken first, while its bytes are warm
  readonly #idle = new Set<number>(); // in order of release
  /** Told when an idle block is taken for something else, before it is. */
  onEvict: (block: number) => void = () => undefined;

  constructor(readonly numBlocks: number) {
    this.#references = new Int32Array(numBlocks);
    this.#cached = new Uint8Array(numBlocks);
    this.#free = Array.from({ length: numBlocks }, (_, i) => numBlocks - 1 - i);
  }

  /** Blocks that allocate() can hand out. */
  get numAvailable(): number {
    return this.#free.length + this.#idle.size;
  }

  get numIdle(): number {
    return this.#idle.size;
  }

  /** `count` blocks with one reference each, or null if fewer are available; then nothing is taken. */
  allocate(count: number): number[] | null {
    if (count > this.numAvailable) return null;
    return Array.from({ length: count }, () => {
      if (this.#free.length === 0) this.#evict();
      const block = this.#free.pop()!;
      this.#references[block] = 1;
      return block;
    });
  }

  /** One more reference to a block that is in use or idle. */
  retain(block: number): void {
    if (this.#references[block]! === 0) {
      invariant(this.#idle.delete(block), `block ${block} is free and was retained`);
    }
    this.#references[block]!++;
  }

  /** One reference less to each; the last blocks of a sequence are the first to be forgotten. Ids below 0 are skipped. */
  release(blocks: ArrayLike<number>): void {
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i]!;
      if (block < 0) continue;
      invariant(this.#references[block]! > 0, `block ${block} was released twice`);
      if (--this.#references[block]! > 0) continue;
      if (this.#cached[block] === 1) this.#idle.add(block);
      else this.#free.push(block);
    }
  }

  isShared(block: number): boolean {
    return this.#references[block]! > 1;
  }

  /** Kept for its content alone. */
  isIdle(block: number): boolean {
    return this.#idle.has(block);
  }

  /** The block's content is worth keeping after its last reference. */
  markCached(block: number): void {
    this.#cached[block] = 1;
  }

  /** The opposite; an idle block becomes free. */
  unmarkCached(block: number): void {
    this.#cached[block] = 0;
    if (this.#idle.delete(block)) this.#free.push(block);
  }

  isCached(block: number): boolean {
    return this.#cached[block] === 1;
  }

  /** The prefix cache forgets the block, which unmarks it. */
  #evict(): void {
    const block = this.#idle.values().next().value!;
    this.onEvict(block);
    invariant(this.#references[block] === 0 && !this.#idle.has(block), `block ${block} was not given up`);
  }

  /** References held by others, by block: every block is free, idle or referred to, never two of these. */
  checkIntegrity(references: ReadonlyMap<number, number>): void {
    const free = new Set(this.#free);
    invariant(free.size === this.#free.length, 'a block is on the free list twice');
    for (let block = 0; block < this.numBlocks; block++) {
      const count = this.#references[block]!;
      invariant(count === (references.get(block) ?? 0), `block ${block} has ${count} references, owners have others`);
      const places = Number(count > 0) + Number(free.has(block)) + Number(this.#idle.has(block));
      invariant(places === 1, `block ${block} is in ${places} places`);
      invariant(!this.#idle.has(block) || this.isCached(block), `idle block ${block} is not cached`);
      invariant(!free.has(block) || !this.isCached(block), `free block ${block} is cached`);
    }
  }
}
