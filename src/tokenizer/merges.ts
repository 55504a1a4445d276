import { MergeRules } from './merge-rules.js';
import { type Complain, quoted } from './problem.js';
import { type Vocabulary, vocabularyLimits } from './vocabulary.js';

/**
 * Merge rules from a merge list: the n-th line has rank n. A line is "left right", or [left, right] where tokens may
 * hold spaces. Throws TOKENIZER_INVALID for a line of another form or one that names no token.
 *
 * @param isSpecial tokens that text must not become; merges that would make one are left out
 * @param continuingPrefix what the right side has at its start and the joined token has not
 */
export function rulesFromMerges(
  merges: readonly unknown[],
  vocabulary: Vocabulary,
  isSpecial: (id: number) => boolean,
  complain: Complain,
  continuingPrefix = '',
): MergeRules {
  if (merges.length > vocabularyLimits.merges)
    throw complain(`${merges.length} merges; at most ${vocabularyLimits.merges}`);
  const rules = new MergeRules(merges.length);
  let joinedId: number | null = null;
  for (let rank = 0; rank < merges.length; rank++) {
    const [left, right] = sidesOf(merges[rank], rank, complain);
    const tail = right.startsWith(continuingPrefix) ? right.slice(continuingPrefix.length) : right;
    const leftId = vocabulary.id(left);
    const rightId = vocabulary.id(right);
    joinedId = idOfJoined(vocabulary, left, tail, joinedId);
    if (leftId === null || rightId === null || joinedId === null) {
      const missing = leftId === null ? left : rightId === null ? right : left + tail;
      throw complain(`merge ${rank} needs ${quoted(missing)}, which is no token`);
    }
    if (!isSpecial(joinedId)) rules.add(leftId, rightId, rank, joinedId);
  }
  return rules;
}

/** The id of `left + right`. Most often it is that of the merge before or the next one: lists follow the vocabulary. */
function idOfJoined(vocabulary: Vocabulary, left: string, right: string, before: number | null): number | null {
  for (let id = before ?? 0; before !== null && id <= before + 1; id++) {
    const text = vocabulary.text(id);
    if (text?.length === left.length + right.length && text.startsWith(left) && text.endsWith(right)) return id;
  }
  return vocabulary.id(left + right);
}

function sidesOf(merge: unknown, rank: number, complain: Complain): readonly [string, string] {
  if (typeof merge === 'string') {
    const space = merge.indexOf(' ', 1); // the left side may itself be a space
    if (space > 0 && space < merge.length - 1) return [merge.slice(0, space), merge.slice(space + 1)];
  } else if (Array.isArray(merge) && merge.length === 2) {
    const [left, right]: unknown[] = merge;
    if (typeof left === 'string' && typeof right === 'string' && left !== '' && right !== '') return [left, right];
  }
  throw complain(`merge ${rank} is not a pair of tokens`);
}

export interface ScoreRules {
  readonly rules: MergeRules;
  /** Symbols of the characters that tokens are made of. */
  readonly characters: ReadonlyMap<string, number>;
  /** Characters among them that are no token themselves; their symbols follow the vocabulary's. */
  readonly partialCharacters: readonly string[];
}

/**
 * Merge rules from token scores, as SentencePiece's BPE has them (Kudo & Richardson 2018, arXiv:1808.06226): any two
 * neighbours that spell a token may be joined, the highest score first, the leftmost of equals first. Since symbols
 * are tokens or single characters, all the pairs that can ever meet are known beforehand.
 *
 * @param scores   [vocabulary size]
 * @param mayMerge tokens that text may become: not control tokens, nor those for bytes
 */
export function rulesFromScores(
  vocabulary: Vocabulary,
  scores: ArrayLike<number>,
  mayMerge: (id: number) => boolean,
): ScoreRules {
  const ranks = ranksOfScores(scores);
  const characters = new Map<string, number>();
  const partialCharacters: string[] = [];
  const symbolOf = (text: string, length: number): number => {
    const id = vocabulary.id(text);
    if (id !== null && mayMerge(id)) return id;
    if (length > 1) return -1;
    let symbol = characters.get(text);
    if (symbol === undefined) {
      symbol = vocabulary.size + partialCharacters.push(text) - 1;
      characters.set(text, symbol);
    }
    return symbol;
  };

  const rules = new MergeRules(vocabulary.size * 2);
  for (let id = 0; id < vocabulary.size; id++) {
    const text = vocabulary.text(id);
    if (text === null || !mayMerge(id)) continue;
    const tokenCharacters = Array.from(text);
    if (tokenCharacters.length === 1) characters.set(text, id);
    let split = 0;
    for (let i = 1; i < tokenCharacters.length; i++) {
      split += tokenCharacters[i - 1]!.length;
      const left = symbolOf(text.slice(0, split), i);
      const right = symbolOf(text.slice(split), tokenCharacters.length - i);
      if (left >= 0 && right >= 0) rules.add(left, right, ranks[id]!, id);
    }
  }
  return { rules, characters, partialCharacters };
}

/** [tokens] place of each score among the different scores, the highest first. */
function ranksOfScores(scores: ArrayLike<number>): Int32Array {
  const sorted = Float64Array.from(scores).sort();
  const places = new Map<number, number>();
  for (let i = sorted.length - 1; i >= 0; i--) {
    if (!places.has(sorted[i]!)) places.set(sorted[i]!, places.size);
  }
  return Int32Array.from(scores, (score) => places.get(score)!);
}
