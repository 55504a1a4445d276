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
  let joinedId = -1;
  for (let rank = 0; rank < merges.length; rank++) {
    const [merge, space] = partsOf(merges[rank], rank, complain);
    const tail = space + 1 + (merge.startsWith(continuingPrefix, space + 1) ? continuingPrefix.length : 0);
    const leftId = vocabulary.find(merge, 0, space);
    const rightId = vocabulary.find(merge, space + 1);
    joinedId = joinedIdOf(vocabulary, merge, space, tail, joinedId);
    if (leftId < 0 || rightId < 0 || joinedId < 0) {
      const left = merge.slice(0, space);
      const missing = leftId < 0 ? left : rightId < 0 ? merge.slice(space + 1) : left + merge.slice(tail);
      throw complain(`merge ${rank} needs ${quoted(missing)}, which is no token`);
    }
    if (!isSpecial(joinedId)) rules.add(leftId, rightId, rank, joinedId);
  }
  return rules;
}

/** A merge as "left right", and where the space is. */
function partsOf(merge: unknown, rank: number, complain: Complain): readonly [string, number] {
  if (typeof merge === 'string') {
    const space = merge.indexOf(' ', 1); // the left side may itself begin with a space
    if (space > 0 && space < merge.length - 1) return [merge, space];
  } else if (Array.isArray(merge) && merge.length === 2) {
    const [left, right]: unknown[] = merge;
    if (typeof left === 'string' && typeof right === 'string' && left !== '' && right !== '') {
      return [`${left} ${right}`, left.length];
    }
  }
  throw complain(`merge ${rank} is not a pair of tokens`);
}

/**
 * The id of merge[0, space) + merge[tail, end), or -1. Most often it is that of the merge before or the one after it,
 * since merge lists follow the vocabulary.
 */
function joinedIdOf(vocabulary: Vocabulary, merge: string, space: number, tail: number, before: number): number {
  for (let id = Math.max(0, before); id <= before + 1; id++) {
    const text = vocabulary.text(id);
    if (text === null || text.length !== space + merge.length - tail) continue;
    let same = 0;
    while (same < space && text.charCodeAt(same) === merge.charCodeAt(same)) same++;
    while (same >= space && same < text.length && text.charCodeAt(same) === merge.charCodeAt(tail + same - space))
      same++;
    if (same === text.length) return id;
  }
  return vocabulary.find(merge.slice(0, space) + merge.slice(tail));
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
  /** The symbol of text[start, end), or -1. */
  const symbolOf = (text: string, start: number, end: number, isCharacter: boolean): number => {
    const id = vocabulary.find(text, start, end);
    if (id >= 0 && mayMerge(id)) return id;
    if (!isCharacter) return -1;
    const character = text.slice(start, end);
    let symbol = characters.get(character);
    if (symbol === undefined) {
      symbol = vocabulary.size + partialCharacters.push(character) - 1;
      characters.set(character, symbol);
    }
    return symbol;
  };

  const rules = new MergeRules(vocabulary.size * 2);
  for (let id = 0; id < vocabulary.size; id++) {
    const text = vocabulary.text(id);
    if (text === null || !mayMerge(id)) continue;
    const first = widthAt(text, 0);
    if (first === text.length) characters.set(text, id);
    for (let split = first; split < text.length; ) {
      const next = split + widthAt(text, split);
      const left = symbolOf(text, 0, split, split === first);
      const right = symbolOf(text, split, text.length, next === text.length);
      if (left >= 0 && right >= 0) rules.add(left, right, ranks[id]!, id);
      split = next;
    }
  }
  return { rules, characters, partialCharacters };
}

/** Code units of the character there. */
function widthAt(text: string, index: number): number {
  return text.codePointAt(index)! > 0xffff ? 2 : 1;
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
