import { type PreTokenizer, splitter, uncut } from './pre-tokenizer.js';
import type { Vocabulary } from './vocabulary.js';

/** What SentencePiece writes for a space: U+2581. */
export const spaceMark = '\u2581';

const markInside = /[^\u2581]\u2581/;
const markedWords = /\u2581+[^\u2581]*|[^\u2581]+/g;

/**
 * Cuts before runs of space marks, where no token can reach across: if none has a mark behind another character, then
 * merging the words one by one gives what merging the whole text gives, and words can be remembered. Vocabularies with
 * such tokens are not cut.
 *
 * @param mayMerge tokens that text may become
 */
export function wordsAtMarks(vocabulary: Vocabulary, mayMerge: (id: number) => boolean): PreTokenizer {
  for (let id = 0; id < vocabulary.size; id++) {
    if (mayMerge(id) && markInside.test(vocabulary.text(id) ?? '')) return uncut;
  }
  return splitter(markedWords, 'Isolated');
}
