import { toByteAlphabet } from './byte-alphabet.js';
import type { JsonNode } from './json-node.js';
import { patternOf } from './normalizer.js';
import { anywhere, type Change, PART, partwise } from './partwise.js';
import { compilePattern, literalPattern, Stretches, whiteSpace, wordCharacters } from './pattern.js';

/** Text on its way to become words. */
export interface Pieces {
  readonly texts: readonly string[];
  /** Whether the first of them begins where the whole input begins. */
  readonly fromStart: boolean;
}

/**
 * Cuts pieces of text into smaller ones; tokens never cross the cuts. They come in portions, each of which takes some
 * tenths of a millisecond to make; a portion may be empty.
 */
export type PreTokenizer = (pieces: Pieces) => Iterable<Pieces>;

/** A portion of pieces that are still being made. */
const nothing: Pieces = { texts: [], fromStart: false };
/** What a portion costs at most, and a stretch of text besides its length, in UTF-16 units. */
const PORTION = 1024;
const STRETCH_COST = 8;

export const uncut: PreTokenizer = (pieces) => [pieces];

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
  if (node.isAbsent) return uncut;
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
  return steps.reduceRight<PreTokenizer>(
    (after, step) =>
      after === uncut
        ? step
        : function* (pieces) {
            for (const portion of step(pieces)) yield* after(portion);
          },
    uncut,
  );
}

function behaviorOf(node: JsonNode, absent: SplitBehavior | null): SplitBehavior {
  const member = node.member('behavior');
  if (member.isAbsent && absent !== null) return absent;
  if (!behaviors.includes(member.text())) throw member.wrong(behaviors.join(', '));
  return member.text() as SplitBehavior;
}

/** Whether a stretch of text is joined to the one before it; of both, whether they are matches. */
type Joins = (before: boolean, isMatch: boolean) => boolean;

const joining: Readonly<Record<SplitBehavior, Joins>> = {
  Isolated: () => false,
  Removed: () => false,
  Contiguous: (before, isMatch) => before === isMatch,
  MergedWithPrevious: (before, isMatch) => isMatch && !before,
  MergedWithNext: (before, isMatch) => before && !isMatch,
};

/** Splits by a pattern; `invert` takes what lies between matches for the matches. */
export function splitter(pattern: RegExp, behavior: SplitBehavior, invert = false): PreTokenizer {
  const joins = joining[behavior];
  const isKept = (isMatch: boolean) => behavior !== 'Removed' || !isMatch;
  return function* ({ texts, fromStart }) {
    let cut: string[] = [];
    let cutFromStart = false;
    let cost = 0;
    for (let i = 0; i < texts.length; i++) {
      const text = texts[i]!;
      const keep = (start: number, end: number) => {
        if (cut.length === 0) cutFromStart = fromStart && i === 0 && start === 0;
        cut.push(text.slice(start, end));
      };
      const stretches = new Stretches(text, pattern);
      let start = 0;
      let before: boolean | null = null;
      while (stretches.advance()) {
        const isMatch = stretches.isMatch !== invert;
        if (before !== null && !joins(before, isMatch)) {
          if (isKept(before)) keep(start, stretches.start);
          start = stretches.start;
        }
        before = isMatch;
        cost += STRETCH_COST + stretches.end - stretches.start;
        if (cost < PORTION) continue;
        yield { texts: cut, fromStart: cutFromStart };
        cut = [];
        cutFromStart = false;
        cost = 0;
      }
      if (before !== null && isKept(before)) keep(start, text.length);
    }
    yield { texts: cut, fromStart: cutFromStart };
  };
}

/** Changes every piece, character by character. */
export function changer(change: Change): PreTokenizer {
  const changeSlowly = partwise(change, anywhere);
  return function* ({ texts, fromStart }) {
    const changed: string[] = [];
    for (const text of texts) {
      if (text.length <= PART) {
        changed.push(change(text));
        continue;
      }
      const work = changeSlowly(text);
      let step = work.next();
      for (; !step.done; step = work.next()) yield nothing;
      changed.push(step.value);
    }
    yield { texts: changed, fromStart };
  };
}

function byteLevel(node: JsonNode): PreTokenizer {
  const addSpace = node.member('add_prefix_space').flag(true);
  const isSplit = node.member('use_regex').flag(true);
  const spaced: PreTokenizer = ({ texts, fromStart }) => [
    { texts: texts.map((text) => (text.startsWith(' ') ? text : ` ${text}`)), fromStart },
  ];
  return sequence([
    ...(addSpace ? [spaced] : []),
    ...(isSplit ? [splitter(compilePattern(gpt2Words, node.complain), 'Isolated')] : []),
    changer(toByteAlphabet),
  ]);
}

/** SentencePiece's handling of spaces: each becomes a visible mark, one may be put in front, words begin at marks. */
function metaspace(node: JsonNode): PreTokenizer {
  const mark = node.member('replacement').optionalText() ?? '\u2581';
  const scheme = node.member('prepend_scheme').optionalText() ?? 'always';
  if (!['always', 'first', 'never'].includes(scheme)) throw node.complain(`prepend_scheme ${scheme} is not supported`);
  // The older spelling of the same thing.
  const prepend = node.member('add_prefix_space').flag(true) ? scheme : 'never';
  const prefixed: PreTokenizer = ({ texts, fromStart }) => {
    const isWanted = (i: number) => prepend === 'always' || (prepend === 'first' && i === 0 && fromStart);
    return [{ texts: texts.map((text, i) => (isWanted(i) && !text.startsWith(mark) ? mark + text : text)), fromStart }];
  };
  return sequence([
    changer((text) => text.replaceAll(' ', () => mark)),
    prefixed,
    ...(node.member('split').flag(true) ? [splitter(literalPattern(mark), 'MergedWithNext')] : []),
  ]);
}

function fixedLength(length: number): PreTokenizer {
  return function* ({ texts, fromStart }) {
    let cut: string[] = [];
    let cost = 0;
    let cutFromStart = fromStart;
    for (const text of texts) {
      for (let start = 0, end = 0; start < text.length; start = end) {
        for (let i = 0; i < Math.max(1, length) && end < text.length; i++)
          end += text.codePointAt(end)! > 0xffff ? 2 : 1;
        cut.push(text.slice(start, end));
        cost += STRETCH_COST + end - start;
        if (cost < PORTION) continue;
        yield { texts: cut, fromStart: cutFromStart };
        cut = [];
        cost = 0;
        cutFromStart = false;
      }
    }
    yield { texts: cut, fromStart: cutFromStart };
  };
}
