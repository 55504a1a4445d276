import { PairTable } from './pair-table.js';

/** A trie over UTF-16 code units. Nodes are numbers, so walking it allocates nothing. */
export class CharTrie {
  static readonly root = 0;
  /** (node, code unit) to node. */
  readonly #children: PairTable;
  /** [nodes]: value of the entry that ends there, or -1. */
  readonly #values: number[] = [-1];

  /** @param expectedNodes about as many as the entries have characters, less what they share. */
  constructor(expectedNodes = 0) {
    this.#children = new PairTable(expectedNodes);
  }

  get isEmpty(): boolean {
    return this.#values.length === 1;
  }

  /** @param value non-negative; replaces that of an equal entry. */
  insert(text: string, value: number): void {
    let node = CharTrie.root;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      let next = this.#children.get(node, code);
      if (next < 0) {
        next = this.#values.push(-1) - 1;
        this.#children.add(node, code, next);
      }
      node = next;
    }
    this.#values[node] = value;
  }

  /** The node a code unit leads to, or -1. */
  child(node: number, code: number): number {
    return this.#children.get(node, code);
  }

  /** The value of the entry that ends at a node, or -1. */
  value(node: number): number {
    return this.#values[node]!;
  }
}
