import { CharTrie } from './char-trie.js';
import type { Normalizer } from './normalizer.js';
import { isWhiteSpace, wordCharacters } from './pattern.js';
import { finish } from './work.js';

/** A token that is cut out of the text before anything else looks at it. */
export interface AddedToken {
  readonly id: number;
  readonly text: string;
  /** Control tokens: only the program may write them, unless the caller asks for them to be read from text. */
  readonly special: boolean;
  /** Whether it is looked for in the normalised text. */
  readonly normalized: boolean;
  /** Not inside of words. */
  readonly singleWord: boolean;
  /** Takes the white space before it along. */
  readonly stripLeft: boolean;
  readonly stripRight: boolean;
}

/** Text, or one added token. */
export type Section = { readonly text: string; readonly start: number } | { readonly id: number };

/** Found from left to right; null for a while without any. */
type Sections = Generator<Section | null, void, void>;

/** UTF-16 units searched between two pauses. */
const PAUSE = 1 << 14;

/** Whether a special token may stand here, in UTF-16 units. */
type MayBeSpecial = (start: number, end: number) => boolean;

/** Finds added tokens: at each place the longest, from the left. */
export class AddedTokens {
  /** Special tokens as they are spelled. */
  readonly specialTexts: readonly string[];
  readonly #normalize: Normalizer;
  /** All of them, for text that may hold special tokens; and those that are found in any text. */
  readonly #all: Matchers;
  readonly #ordinary: Matchers;

  constructor(tokens: readonly AddedToken[], normalize: Normalizer) {
    this.specialTexts = tokens.filter(({ special }) => special).map(({ text }) => text);
    this.#normalize = normalize;
    this.#all = matchersOf(tokens, normalize);
    this.#ordinary = matchersOf(
      tokens.filter(({ special }) => !special),
      normalize,
    );
  }

  /**
   * Cuts text into added tokens and what lies between them, the latter normalised.
   *
   * @param parseSpecial whether special tokens are recognised too
   * @param content      [text.length] 1 where no special token may reach; null: nowhere
   */
  *split(text: string, parseSpecial: boolean, content: Uint8Array | null = null): Sections {
    const { raw, normalized: found } = parseSpecial ? this.#all : this.#ordinary;
    const mayBeSpecial: MayBeSpecial = (start, end) => content === null || !content.subarray(start, end).includes(1);
    for (const section of raw.split(text, mayBeSpecial)) {
      if (section === null || 'id' in section) {
        yield section;
        continue;
      }
      // Normalisation moves places: special tokens that are found after it need a section without any.
      const isClean = mayBeSpecial(section.start, section.start + section.text.length);
      const matcher = isClean ? found : this.#ordinary.normalized;
      const work = this.#normalize(section.text);
      let step = work.next();
      for (; !step.done; step = work.next()) yield null;
      for (const part of matcher.split(step.value)) {
        yield part === null || 'id' in part ? part : { text: part.text, start: section.start + part.start };
      }
    }
  }
}

interface Matchers {
  readonly raw: TokenMatcher;
  readonly normalized: TokenMatcher;
}

function matchersOf(tokens: readonly AddedToken[], normalize: Normalizer): Matchers {
  const raw = new TokenMatcher();
  const normalized = new TokenMatcher();
  for (const token of tokens) {
    if (token.normalized) normalized.add(finish(normalize(token.text)), token);
    else raw.add(token.text, token);
  }
  return { raw, normalized };
}

const startsWithWord = new RegExp(`^[${wordCharacters}]`, 'u');
const endsWithWord = new RegExp(`[${wordCharacters}]$`, 'u');

class TokenMatcher {
  readonly #trie = new CharTrie();
  readonly #tokens: AddedToken[] = [];
  /** [65536] 1 for UTF-16 units that tokens begin with. */
  readonly #begins = new Uint8Array(1 << 16);

  add(spelling: string, token: AddedToken): void {
    if (spelling === '') return;
    this.#trie.insert(spelling, this.#tokens.push(token) - 1);
    this.#begins[spelling.charCodeAt(0)] = 1;
  }

  *split(text: string, mayBeSpecial: MayBeSpecial = () => true): Sections {
    if (text === '') return;
    if (this.#trie.isEmpty) {
      yield { text, start: 0 };
      return;
    }
    let copied = 0;
    for (let start = 0, pause = PAUSE; start < text.length; ) {
      if (start >= pause) {
        yield null;
        pause = start + PAUSE;
      }
      if (this.#begins[text.charCodeAt(start)] === 0) {
        start++;
        continue;
      }
      const match = this.#longest(text, start, mayBeSpecial);
      if (match === null) {
        start++;
        continue;
      }
      const { token, end } = match;
      if (token.singleWord && isInsideWord(text, start, end)) {
        start = end;
        continue;
      }
      let before = start;
      while (token.stripLeft && before > copied && isWhiteSpace(text.charCodeAt(before - 1))) before--;
      let after = end;
      while (token.stripRight && after < text.length && isWhiteSpace(text.charCodeAt(after))) after++;
      if (before > copied) yield { text: text.slice(copied, before), start: copied };
      yield { id: token.id };
      copied = after;
      start = after;
    }
    if (copied < text.length) yield { text: text.slice(copied), start: copied };
  }

  #longest(text: string, start: number, mayBeSpecial: MayBeSpecial): { token: AddedToken; end: number } | null {
    let found: { token: AddedToken; end: number } | null = null;
    for (let node = CharTrie.root, i = start; i < text.length; i++) {
      node = this.#trie.child(node, text.charCodeAt(i));
      if (node < 0) break;
      const index = this.#trie.value(node);
      if (index < 0) continue;
      const token = this.#tokens[index]!;
      if (!token.special || mayBeSpecial(start, i + 1)) found = { token, end: i + 1 };
    }
    return found;
  }
}

function isInsideWord(text: string, start: number, end: number): boolean {
  // Two code units: the neighbour may be a surrogate pair.
  return endsWithWord.test(text.slice(Math.max(0, start - 2), start)) || startsWithWord.test(text.slice(end, end + 2));
}
