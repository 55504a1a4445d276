import { toByteAlphabet } from './byte-alphabet.js';
import type { JsonNode } from './json-node.js';
import { patternOf } from './normalizer.js';
import { compilePattern, literalPattern, type Stretch, stretches, whiteSpace, wordCharacters } from './pattern.js';

/** Text on its way to become words. */
export interface Pieces {
  readonly texts: readonly string[];
  /** Whether the first of them begins where the whole input begins. */
  readonly fromStart: boolean;
}

/** Cuts pieces of text into smaller ones; tokens never cross the cuts. */
export type PreTokenizer = (pieces: Pieces) => Pieces;

/** What becomes of the matches of a splitting pattern. */
export type SplitBehavior = 'Isolated' | 'Removed' | 'Contiguous' | 'MergedWithPrevious' | 'MergedWithNext';

const behaviors: readonly string[] = ['Isolated', 'Removed', 'Contiguous', 'MergedWithPrevious', 'MergedWithNext'];
const MAX_STEPS = 64;
const MAX_LENGTH = 1 << 20;

/** The words of GPT-2 (Radford et al. 2019, encoder.py). */
export const gpt2Words = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** ASCII punctuation and symbols, and what Unicode calls punctuation. */
const punctuation = /[!-/:-@[-`{-~\p{P}]/gu;

/** The pre-tokenizer that tokenizer.json describes. Throws TOKENIZER_INVALID for one that is unknown or malformed. */
export function preTokenizerFromJson(node: JsonNode): PreTokenizer {
  if (node.isAbsent) return (pieces) => pieces;
  const type = node.member('type').text();
  switch (type) {
    case 'Sequence':
      return sequence(node.member('pretokenizers').items(MAX_STEPS).map(preTokenizerFromJson));
    case 'ByteLevel':
      return byteLevel(node);
    case 'Split':
      return splitter(patternOf(node.member('pattern')), behaviorOf(node, null), node.member('invert').flag(false));
    case 'Punctuation':
      return splitter(punctuation, behaviorOf(node, 'Isolated'));
    case 'Digits':
      return splitter(
        /[\p{Nd}\p{Nl}\p{No}]/gu,
        node.member('individual_digits').flag(false) ? 'Isolated' : 'Contiguous',
      );
    case 'Whitespace':
      return splitter(new RegExp(`[${wordCharacters}]+|[^${wordCharacters}${whiteSpace}]+`, 'gu'), 'Removed', true);
    case 'WhitespaceSplit':
      return splitter(new RegExp(whiteSpace, 'gu'), 'Removed');
    case 'BertPreTokenizer':
      return bertWords();
    case 'CharDelimiterSplit':
      return splitter(literalPattern(node.member('delimiter').text()), 'Removed');
    case 'Metaspace':
      return metaspace(node);
    case 'FixedLength':
      return fixedLength(node.member('length').optionalCount(MAX_LENGTH) ?? 5);
    default:
      throw node.complain(`pre-tokenizer ${type} is not supported`);
  }
}

/** Words of BERT: what lies between white space, every punctuation mark by itself. */
export function bertWords(): PreTokenizer {
  return sequence([splitter(new RegExp(whiteSpace, 'gu'), 'Removed'), splitter(punctuation, 'Isolated')]);
}

export function sequence(steps: readonly PreTokenizer[]): PreTokenizer {
  return (pieces) => steps.reduce((current, step) => step(current), pieces);
}

function behaviorOf(node: JsonNode, absent: SplitBehavior | null): SplitBehavior {
  const member = node.member('behavior');
  if (member.isAbsent && absent !== null) return absent;
  if (!behaviors.includes(member.text())) throw member.wrong(behaviors.join(', '));
  return member.text() as SplitBehavior;
}

/** Splits by a pattern; `invert` takes what lies between matches for the matches. */
export function splitter(pattern: RegExp, behavior: SplitBehavior, invert = false): PreTokenizer {
  return ({ texts, fromStart }) => {
    const cut: string[] = [];
    let cutFromStart = false;
    for (let i = 0; i < texts.length; i++) {
      const text = texts[i]!;
      const found = stretches(text, pattern);
      const kept = behave(invert ? found.map(inverted) : found, behavior);
      if (i === 0) cutFromStart = fromStart && kept[0]?.start === 0;
      for (const { start, end } of kept) cut.push(text.slice(start, end));
    }
    return { texts: cut, fromStart: cutFromStart };
  };
}

function inverted({ start, end, isMatch }: Stretch): Stretch {
  return { start, end, isMatch: !isMatch };
}

function behave(found: readonly Stretch[], behavior: SplitBehavior): readonly Stretch[] {
  switch (behavior) {
    case 'Isolated':
      return found;
    case 'Removed':
      return found.filter(({ isMatch }) => !isMatch);
    case 'Contiguous':
      return join(found, (before, stretch) => before.isMatch === stretch.isMatch);
    case 'MergedWithPrevious':
      return join(found, (before, stretch) => stretch.isMatch && !before.isMatch);
    case 'MergedWithNext':
      return join(found, (before, stretch) => before.isMatch && !stretch.isMatch);
  }
}

/** Joins neighbours where the rule says so. */
function join(found: readonly Stretch[], belongs: (before: Stretch, stretch: Stretch) => boolean): Stretch[] {
  const joined: Stretch[] = [];
  found.forEach((stretch, i) => {
    const before = found[i - 1];
    if (before === undefined || !belongs(before, stretch)) joined.push(stretch);
    else joined.push({ ...stretch, start: joined.pop()!.start });
  });
  return joined;
}

function byteLevel(node: JsonNode): PreTokenizer {
  const addSpace = node.member('add_prefix_space').flag(true);
  const split = node.member('use_regex').flag(true)
    ? splitter(compilePattern(gpt2Words, node.complain), 'Isolated')
    : sequence([]);
  return ({ texts, fromStart }) => {
    const spaced = addSpace ? texts.map((text) => (text.startsWith(' ') ? text : ` ${text}`)) : texts;
    const words = split({ texts: spaced, fromStart });
    return { ...words, texts: words.texts.map(toByteAlphabet) };
  };
}

/** SentencePiece's handling of spaces: each becomes a visible mark, one may be put in front, words begin at marks. */
function metaspace(node: JsonNode): PreTokenizer {
  const mark = node.member('replacement').optionalText() ?? '\u2581';
  const scheme = node.member('prepend_scheme').optionalText() ?? 'always';
  if (!['always', 'first', 'never'].includes(scheme)) throw node.complain(`prepend_scheme ${scheme} is not supported`);
  // The older spelling of the same thing.
  const prepend = node.member('add_prefix_space').flag(true) ? scheme : 'never';
  const words = node.member('split').flag(true) ? splitter(literalPattern(mark), 'MergedWithNext') : sequence([]);
  return (pieces) => {
    const texts = pieces.texts.map((text, i) => {
      const marked = text.replaceAll(' ', mark);
      const wanted = prepend === 'always' || (prepend === 'first' && i === 0 && pieces.fromStart);
      return wanted && !marked.startsWith(mark) ? mark + marked : marked;
    });
    return words({ texts, fromStart: pieces.fromStart });
  };
}

function fixedLength(length: number): PreTokenizer {
  return ({ texts, fromStart }) => {
    const cut = texts.flatMap((text) => {
      const characters = Array.from(text);
      const parts: string[] = [];
      for (let i = 0; i < characters.length; i += Math.max(1, length)) {
        parts.push(characters.slice(i, i + Math.max(1, length)).join(''));
      }
      return parts;
    });
    return { texts: cut, fromStart };
  };
}
