import * as huggingface from '@huggingface/tokenizers';
import { type Complain, quoted } from './problem.js';

/** The one class used; the package's declarations import without file extensions, which TypeScript cannot follow. */
const { SplitPreTokenizer } = huggingface as unknown as {
  readonly SplitPreTokenizer: new (config: {
    type: 'Split';
    pattern: { Regex: string };
    behavior: 'Isolated';
  }) => { readonly pattern: RegExp | null };
};

/** Longest published pattern: 1,600 characters. */
const MAX_PATTERN_LENGTH = 20_000;

/** White space as Unicode and the tokenizers of Rust have it: JavaScript's \s has U+FEFF too and lacks U+0085. */
export const whiteSpace = '\\p{White_Space}';

/** What Rust's \w matches. */
export const wordCharacters = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}';

/** Whether a UTF-16 unit is white space by that definition; no such character needs two. */
export function isWhiteSpace(unit: number): boolean {
  if (unit < 0x80) return unit === 0x20 || (unit >= 0x09 && unit <= 0x0d);
  if (unit < 0x2000) return unit === 0x85 || unit === 0xa0 || unit === 0x1680;
  return unit <= 0x200a || unit === 0x2028 || unit === 0x2029 || unit === 0x202f || unit === 0x205f || unit === 0x3000;
}

/**
 * Compiles a pattern of tokenizer.json. Those are written for Oniguruma; @huggingface/tokenizers translates them,
 * which is why that library is a dependency: its tokenizer proper cannot leave special tokens in user text alone,
 * cannot stream, and approximates SentencePiece's normalisation and BERT's.
 *
 * Throws TOKENIZER_INVALID for a pattern that is too long or cannot be translated.
 */
export function compilePattern(source: string, complain: Complain): RegExp {
  if (source.length > MAX_PATTERN_LENGTH) {
    throw complain(`a pattern has ${source.length} characters; at most ${MAX_PATTERN_LENGTH}`);
  }
  try {
    const { pattern } = new SplitPreTokenizer({ type: 'Split', pattern: { Regex: source }, behavior: 'Isolated' });
    if (pattern !== null) return pattern;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw complain(`pattern ${quoted(source)} is not understood: ${error.message}`);
  }
  throw complain(`pattern ${quoted(source)} is not understood`);
}

/** Matches exactly `text`. */
export function literalPattern(text: string): RegExp {
  return new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'gu');
}

/** Code units matched at once: V8 runs out of stack where a single match has some millions of them. */
const WINDOW = 1 << 20;

/**
 * Walks along a text, over the matches of a pattern and what lies between them; empty stretches are left out. Nothing
 * is looked for before it is asked for.
 */
export class Stretches {
  /** The stretch that `advance` came to, text[start, end). */
  start = 0;
  end = 0;
  isMatch = false;

  #window: string;
  #windowStart = 0;
  /** Where in the window the next match is looked for. */
  #from = 0;
  /** Begin and end of a match in the text: behind a stretch that is none, and looked at beforehand in the window. */
  #matchStart = -1;
  #matchEnd = -1;
  #ahead: RegExpExecArray | null = null;

  /** @param pattern with the flag g */
  constructor(
    readonly text: string,
    readonly pattern: RegExp,
  ) {
    this.#window = text.length <= WINDOW ? text : text.slice(0, WINDOW);
  }

  /** Goes on to the next stretch; false where there is none. */
  advance(): boolean {
    for (;;) {
      if (this.#matchStart < 0 && !this.#find()) {
        if (this.end === this.text.length) return false;
        this.#take(this.text.length, false);
        return true;
      }
      if (this.#matchStart > this.end) {
        this.#take(this.#matchStart, false);
        return true;
      }
      const isEmpty = this.#matchEnd === this.#matchStart;
      this.#matchStart = -1;
      if (isEmpty) continue;
      this.#take(this.#matchEnd, true);
      return true;
    }
  }

  #take(end: number, isMatch: boolean): void {
    this.start = this.end;
    this.end = end;
    this.isMatch = isMatch;
  }

  /** Finds the next match in the text. */
  #find(): boolean {
    for (;;) {
      const isLast = this.#windowStart + this.#window.length === this.text.length;
      const match = this.#ahead ?? this.#exec();
      this.#ahead = null;
      if (match === null) {
        if (isLast) return false;
        this.#move(this.#window.length);
        continue;
      }
      const { index } = match;
      if (!isLast) {
        this.#ahead = this.#exec();
        // The last match may go on behind the window; it is looked for again, unless it begins where the window does.
        if (this.#ahead === null && index > 0) {
          this.#move(index);
          continue;
        }
      }
      this.#matchStart = this.#windowStart + index;
      this.#matchEnd = this.#matchStart + match[0].length;
      return true;
    }
  }

  #move(distance: number): void {
    this.#windowStart += distance;
    this.#window = this.text.slice(this.#windowStart, this.#windowStart + WINDOW);
    this.#from = 0;
  }

  #exec(): RegExpExecArray | null {
    const { pattern } = this;
    pattern.lastIndex = this.#from;
    const match = pattern.exec(this.#window);
    if (match === null) {
      this.#from = this.#window.length + 1;
    } else {
      const end = match.index + match[0].length;
      // Behind an empty match the next one is looked for a character later.
      this.#from = match[0] !== '' ? end : end + (this.#window.codePointAt(end)! > 0xffff && pattern.unicode ? 2 : 1);
    }
    return match;
  }
}
