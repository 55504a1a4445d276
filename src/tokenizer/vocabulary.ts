import { type Complain, quoted } from './problem.js';
import { TextTable } from './text-table.js';

/** Caps on what a file may claim: four times the largest published vocabulary, and no token longer than a page. */
export const vocabularyLimits = { tokens: 1 << 20, merges: (1 << 21) - 1, tokenLength: 1 << 14 } as const;

/** Which texts have which ids. Ids may have gaps: models pad their embedding tables. */
export class Vocabulary {
  readonly #texts: (string | undefined)[] = []; // [size]
  readonly #ids = new TextTable((id) => this.#texts[id]!);
  #longest = 0;

  private constructor() {}

  /** Token `i` of the list has id `i`. Throws TOKENIZER_INVALID if one is not text, too long, or there twice. */
  static fromList(tokens: readonly unknown[], complain: Complain): Vocabulary {
    const vocabulary = new Vocabulary();
    for (let id = 0; id < tokens.length; id++) vocabulary.add(tokens[id], id, complain);
    return vocabulary;
  }

  /** From an object of text to id, as tokenizer.json has it. Throws TOKENIZER_INVALID as fromList, or for a bad id. */
  static fromObject(object: Readonly<Record<string, unknown>>, complain: Complain): Vocabulary {
    const vocabulary = new Vocabulary();
    for (const text of Object.keys(object)) vocabulary.add(text, object[text], complain);
    return vocabulary;
  }

  add(text: unknown, id: unknown, complain: Complain): void {
    if (typeof text !== 'string') throw complain(`token ${String(id)} is ${typeof text}, not text`);
    if (text.length > vocabularyLimits.tokenLength) {
      throw complain(`token ${quoted(text)} has ${text.length} characters, more than ${vocabularyLimits.tokenLength}`);
    }
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocabularyLimits.tokens) {
      // An object may lack toString, or nest deeper than it goes.
      const shown = typeof id === 'object' ? 'an object' : String(id).slice(0, 60);
      throw complain(`token ${quoted(text)} has id ${shown}; expected 0 to ${vocabularyLimits.tokens - 1}`);
    }
    const other = this.#ids.find(text);
    if (other >= 0) throw complain(`token ${quoted(text)} has two ids, ${other} and ${id}`);
    const holder = this.#texts[id];
    if (holder !== undefined) throw complain(`tokens ${quoted(holder)} and ${quoted(text)} have the same id ${id}`);
    while (this.#texts.length < id) this.#texts.push(undefined); // a sparse array would be a hash table
    this.#texts[id] = text;
    this.#ids.add(text, id);
    this.#longest = Math.max(this.#longest, text.length);
  }

  /** One more than the largest id. */
  get size(): number {
    return this.#texts.length;
  }

  /** The text as the file spells it, or null for a gap or an id outside. */
  text(id: number): string | null {
    return this.#texts[id] ?? null;
  }

  /** The id of a text as the file spells it, or null. */
  id(text: string): number | null {
    const id = this.find(text);
    return id < 0 ? null : id;
  }

  /** The id of text[start, end), or -1; for callers that look up many parts of texts. */
  find(text: string, start = 0, end = text.length): number {
    return end - start > this.#longest ? -1 : this.#ids.find(text, start, end); // a word may be a whole book
  }
}
