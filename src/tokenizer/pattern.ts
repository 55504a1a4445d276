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

/** Whether one character is white space by that definition; no such character needs two code units. */
export function isWhiteSpace(character: string): boolean {
  return /\p{White_Space}/u.test(character);
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

/** A stretch of text and whether the pattern matched it. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly isMatch: boolean;
}

/** Code units matched at once: V8 runs out of stack where a single match has some millions of them. */
const WINDOW = 1 << 20;

/** Cuts text into matches and what lies between them; empty stretches are left out. */
export function stretches(text: string, pattern: RegExp): Stretch[] {
  const found: Stretch[] = [];
  let end = 0;
  for (let start = 0; start < text.length; ) {
    const window = text.slice(start, start + WINDOW);
    const isLast = start + window.length === text.length;
    const matches = [...window.matchAll(pattern)];
    // The last match may go on behind the window; it is looked for again, unless it begins where the window does.
    const open = isLast || matches.at(-1)?.index === 0 ? undefined : matches.pop();
    for (const match of matches) {
      const index = start + match.index;
      if (index > end) found.push({ start: end, end: index, isMatch: false });
      end = index + match[0].length;
      if (end > index) found.push({ start: index, end, isMatch: true });
    }
    start += open?.index ?? window.length;
  }
  if (end < text.length) found.push({ start: end, end: text.length, isMatch: false });
  return found;
}
