import { CharTrie } from './char-trie.js';
import type { TokenModel } from './model.js';
import type { Vocabulary } from './vocabulary.js';
import type { Work } from './work.js';

/** Tokens between two pauses. */
const PAUSE = 512;

/** At every place the longest token; what no token covers is left out. */
export class GreedyModel implements TokenModel {
  readonly #trie: CharTrie;

  /** @param mayUse tokens that text may become */
  constructor(vocabulary: Vocabulary, mayUse: (id: number) => boolean) {
    this.#trie = new CharTrie(vocabulary.size * 4);
    for (let id = 0; id < vocabulary.size; id++) {
      const text = vocabulary.text(id);
      if (text !== null && text !== '' && mayUse(id)) this.#trie.insert(text, id);
    }
  }

  *encode(word: string, out: number[]): Work<void> {
    for (let start = 0, count = 1; start < word.length; count++) {
      if (count % PAUSE === 0) yield;
      let found = -1;
      let end = start + 1;
      for (let node = CharTrie.root, i = start; i < word.length; i++) {
        node = this.#trie.child(node, word.charCodeAt(i));
        if (node < 0) break;
        const id = this.#trie.value(node);
        if (id < 0) continue;
        found = id;
        end = i + 1;
      }
      if (found >= 0) out.push(found);
      start = end;
    }
  }
}
