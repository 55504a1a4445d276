import { invariant } from '../base/errors.js';
import type { BlockPool } from './block-pool.js';
import type { Sequence } from './sequence.js';

/** blockSize tokens after those of its parents, and the block that holds their keys and values. */
export interface PrefixNode {
  readonly parent: PrefixNode | null;
  readonly key: string;
  readonly children: Map<string, PrefixNode>;
  /** −1 while its owner is still computing it, and for roots. */
  block: number;
  /** The running sequence that announced it and has not computed it yet. */
  owner: Sequence | null;
}

/** What is known of a prompt. */
export interface PrefixMatch {
  /** In order of position, all computed. */
  readonly nodes: readonly PrefixNode[];
  /** The last of the blocks after them that running sequences are computing just now. */
  readonly announced: PrefixNode | null;
}

/**
 * Finds blocks that hold the keys and values of a prompt's first tokens: a tree with one level per block, keyed by the
 * tokens themselves, so that nothing is ever found by a collision of hashes. Each scope (a tenant and its salt) has a tree
 * of its own and can neither hit nor time another's prompts.
 *
 * Sequences announce the blocks they are about to compute; whoever needs the same ones waits for them rather than compute
 * them too. When two have computed the same block all the same, both go on with the one that is in the tree: equal tokens
 * have equal keys and values, to the bit, however they were batched.
 */
export class PrefixCache {
  readonly #roots = new Map<string, PrefixNode>();
  readonly #nodeOf = new Map<number, PrefixNode>(); // by block
  queriedTokens = 0;
  hitTokens = 0;
  evictedBlocks = 0;
  /** Told of a sequence that starts for the first time, with what it found. */
  onCount: (sequence: Sequence) => void = () => undefined;

  constructor(
    readonly pool: BlockPool,
    /** Tokens. */
    readonly blockSize: number,
    /** Off: nothing is found, nothing is kept. */
    readonly enabled: boolean,
  ) {
    pool.onEvict = (block) => {
      this.evictedBlocks++;
      this.#forget(this.#nodeOf.get(block)!);
    };
  }

  /** The longest known prefix. At least one token is left over, since its logits are wanted. */
  match(sequence: Sequence): PrefixMatch {
    const nodes: PrefixNode[] = [];
    if (!this.enabled || sequence.everyRow) return { nodes, announced: null };
    const maxBlocks = Math.floor((sequence.numTokens - 1) / this.blockSize);
    let announced: PrefixNode | null = null;
    let node = this.#roots.get(sequence.scope);
    for (let i = 0; i < maxBlocks && node !== undefined; i++) {
      node = node.children.get(sequence.blockKey(i));
      if (node === undefined) break;
      if (node.block < 0) announced = node;
      else nodes.push(node);
    }
    return { nodes, announced };
  }

  /** Takes a sequence that starts for the first time into the statistics. */
  count(sequence: Sequence): void {
    this.queriedTokens += sequence.promptLength;
    this.hitTokens += sequence.numCachedTokens;
    this.onCount(sequence);
  }

  /** Puts the blocks that the sequence knows the tokens of, and is about to compute, into the tree. */
  announce(sequence: Sequence): void {
    const numBlocks = Math.floor(sequence.numTokens / this.blockSize);
    if (!this.enabled || numBlocks <= sequence.numCachedBlocks) return;
    let parent = sequence.node ?? this.#root(sequence.scope);
    for (let i = sequence.numCachedBlocks; i < numBlocks; i++) {
      const key = sequence.blockKey(i);
      let node = parent.children.get(key);
      if (node === undefined) {
        node = { parent, key, children: new Map(), block: -1, owner: sequence };
        parent.children.set(key, node);
        sequence.announced.push(node);
      }
      parent = node;
    }
  }

  /**
   * Enters the blocks that the sequence has filled since the last call, unless what comes before them was evicted (which
   * happens to blocks that left a sliding window): nobody could find them.
   */
  commit(sequence: Sequence): void {
    if (!this.enabled || (sequence.node !== null && !this.#isAttached(sequence.node))) return;
    const numFull = Math.floor(sequence.numComputedTokens / this.blockSize);
    for (let i = sequence.numCachedBlocks; i < numFull; i++) {
      const parent: PrefixNode = sequence.node ?? this.#root(sequence.scope);
      const key = sequence.blockKey(i);
      const block = sequence.blocks[i]!;
      let node = parent.children.get(key);
      if (node === undefined) {
        node = { parent, key, children: new Map(), block, owner: null };
        parent.children.set(key, node);
        this.#keep(node, block);
      } else if (node.block < 0) {
        this.#keep(node, block);
      } else if (node.block !== block) {
        this.pool.retain(node.block);
        sequence.setBlock(i, node.block);
        this.pool.release([block]);
      }
      sequence.node = node;
      sequence.numCachedBlocks = i + 1;
    }
  }

  /** The sequence goes away: what it announced and has not computed is nobody's any more. */
  withdraw(sequence: Sequence): void {
    for (const node of sequence.announced.reverse()) {
      if (node.owner === sequence) this.#forget(node);
    }
    sequence.announced = [];
    sequence.node = null;
    sequence.numCachedBlocks = 0;
  }

  /** The nodes from a prompt's first block to this one, and their scope; null if one has been forgotten. */
  pathTo(node: PrefixNode): { scope: string; nodes: readonly PrefixNode[] } | null {
    const nodes: PrefixNode[] = [];
    let at = node;
    for (; at.parent !== null; at = at.parent) {
      if (this.#nodeOf.get(at.block) !== at) return null;
      nodes.push(at);
    }
    return { scope: at.key, nodes: nodes.reverse() };
  }

  /** Enters blocks that were filled from elsewhere. Those that the tree has already remain the caller's alone. */
  enter(scope: string, keys: readonly string[], blocks: readonly number[]): void {
    let parent = this.#root(scope);
    for (const [i, key] of keys.entries()) {
      let node = parent.children.get(key);
      if (node === undefined) {
        node = { parent, key, children: new Map(), block: -1, owner: null };
        parent.children.set(key, node);
      }
      if (node.block < 0) this.#keep(node, blocks[i]!);
      parent = node;
    }
  }

  /** Forgets every prompt that no running sequence uses. */
  clear(): void {
    for (const [block, node] of [...this.#nodeOf]) {
      if (this.#nodeOf.get(block) === node && this.pool.isIdle(block)) this.#forget(node);
    }
  }

  #keep(node: PrefixNode, block: number): void {
    node.block = block;
    node.owner = null;
    this.#nodeOf.set(block, node);
    this.pool.markCached(block);
  }

  /**
   * Takes a node out, and what follows it, which can no longer be found. Blocks in use stay with their sequences. A list
   * and not recursion: a context of 100,000 tokens is a chain of 6,000 nodes.
   */
  #forget(node: PrefixNode): void {
    const nodes = [node];
    // The list grows as it is gone through.
    for (const { children } of nodes) for (const child of children.values()) nodes.push(child);
    for (const each of nodes.reverse()) {
      if (each.block >= 0) {
        this.#nodeOf.delete(each.block);
        this.pool.unmarkCached(each.block);
      }
      this.#detach(each);
    }
  }

  #isAttached(node: PrefixNode): boolean {
    return node.parent?.children.get(node.key) === node;
  }

  #detach(node: PrefixNode): void {
    node.owner = null;
    if (!this.#isAttached(node)) return;
    const parent = node.parent!;
    parent.children.delete(node.key);
    if (this.#roots.get(parent.key) === parent && parent.children.size === 0) this.#roots.delete(parent.key);
  }

  #root(scope: string): PrefixNode {
    let root = this.#roots.get(scope);
    if (root === undefined) {
      root = { parent: null, key: scope, children: new Map(), block: -1, owner: null };
      this.#roots.set(scope, root);
    }
    return root;
  }

  /** The tree holds what is computed, and below that what running sequences have announced; nothing else, no empty roots. */
  checkIntegrity(running: ReadonlySet<Sequence>): void {
    let numComputed = 0;
    const check = (node: PrefixNode): void => {
      for (const child of node.children.values()) {
        invariant(child.parent === node, 'a node of the prefix cache has another parent');
        if (child.block >= 0) {
          numComputed++;
          invariant(this.#nodeOf.get(child.block) === child, `the prefix cache has lost block ${child.block}`);
          invariant(this.pool.isCached(child.block), `block ${child.block} of the prefix cache is not marked`);
          invariant(child.owner === null, `block ${child.block} is computed and announced, at once`);
          invariant(node.parent === null || node.block >= 0, `block ${child.block} follows one that is not computed`);
        } else {
          invariant(child.owner !== null && running.has(child.owner), 'nobody computes an announced block');
        }
        check(child);
      }
    };
    for (const root of this.#roots.values()) {
      invariant(root.children.size > 0, 'a scope without prompts is remembered');
      check(root);
    }
    invariant(numComputed === this.#nodeOf.size, 'a block is kept that cannot be found');
  }
}
