import { BpeModel } from './bpe.js';
import type { JsonNode } from './json-node.js';
import { rulesFromMerges } from './merges.js';
import { byteIdsOf, type TokenModel } from './model.js';
import { type PreTokenizer, uncut } from './pre-tokenizer.js';
import { UnigramModel } from './unigram.js';
import { Vocabulary, vocabularyLimits } from './vocabulary.js';
import { wordsAtMarks } from './word-marks.js';
import { WordLevelModel, WordPieceModel } from './word-models.js';

export interface JsonModel {
  readonly model: TokenModel;
  readonly vocabulary: Vocabulary;
  /** Cuts that change nothing but the time it takes; for tokenizers that have no pre-tokenizer. */
  readonly preTokenize: PreTokenizer;
}

/**
 * The `model` of tokenizer.json: BPE, Unigram, WordPiece or WordLevel. Throws TOKENIZER_INVALID.
 *
 * @param special tokens that text must not become
 */
export function modelFromJson(node: JsonNode, special: ReadonlySet<string>): JsonModel {
  const type = node.member('type').optionalText() ?? guessType(node);
  if (type === 'Unigram') return unigram(node, special);
  const vocabulary = Vocabulary.fromObject(node.member('vocab').object(), node.complain);
  switch (type) {
    case 'BPE':
      return bpe(node, vocabulary, special);
    case 'WordPiece': {
      const unknownId = idOfMember(node, 'unk_token', vocabulary);
      if (unknownId === null) throw node.complain(`${node.where}.unk_token is missing`);
      const model = new WordPieceModel({
        vocabulary,
        unknownId,
        continuingPrefix: node.member('continuing_subword_prefix').optionalText() ?? '##',
        maxCharacters: node.member('max_input_chars_per_word').optionalCount(1 << 20) ?? 100,
      });
      return { model, vocabulary, preTokenize: uncut };
    }
    case 'WordLevel': {
      const model = new WordLevelModel(vocabulary, idOfMember(node, 'unk_token', vocabulary));
      return { model, vocabulary, preTokenize: uncut };
    }
    default:
      throw node.complain(`model ${type} is not supported`);
  }
}

/** Old files have no type. */
function guessType(node: JsonNode): string {
  if (Array.isArray(node.member('vocab').value)) return 'Unigram';
  if (!node.member('merges').isAbsent) return 'BPE';
  return node.member('continuing_subword_prefix').isAbsent ? 'WordLevel' : 'WordPiece';
}

function bpe(node: JsonNode, vocabulary: Vocabulary, special: ReadonlySet<string>): JsonModel {
  const { complain } = node;
  const isSpecial = (id: number) => special.has(vocabulary.text(id) ?? '');
  const merges = node.member('merges').list(vocabularyLimits.merges);
  const continuingPrefix = node.member('continuing_subword_prefix').optionalText() ?? '';
  const rules = rulesFromMerges(merges, vocabulary, isSpecial, complain, continuingPrefix);
  const ignoresMerges = node.member('ignore_merges').flag(false);
  const wholeWord = (word: string) => {
    const id = vocabulary.id(word);
    return id !== null && isSpecial(id) ? null : id;
  };
  const unknownId = idOfMember(node, 'unk_token', vocabulary);
  const model = new BpeModel({
    rules,
    symbolOf: (character) => vocabulary.id(character) ?? -1,
    vocabularySize: vocabularyLimits.tokens,
    continuingPrefix,
    wordSuffix: node.member('end_of_word_suffix').optionalText() ?? '',
    byteIds: node.member('byte_fallback').flag(false) ? byteIdsOf(vocabulary) : null,
    unknownId,
    fuseUnknown: node.member('fuse_unk').flag(false),
    ...(ignoresMerges && { wholeWord }),
  });
  // Where unknown characters are left out, those beside them become neighbours.
  const leavesOut = unknownId === null && !node.member('byte_fallback').flag(false);
  const preTokenize: PreTokenizer = leavesOut ? uncut : wordsAtMarks(vocabulary, (id) => !isSpecial(id));
  return { model, vocabulary, preTokenize };
}

function unigram(node: JsonNode, special: ReadonlySet<string>): JsonModel {
  const { complain } = node;
  const entries = node.member('vocab').list(vocabularyLimits.tokens);
  const texts: unknown[] = [];
  const scores = new Float64Array(entries.length);
  entries.forEach((entry, id) => {
    const [text, score]: unknown[] = Array.isArray(entry) ? entry : [];
    if (typeof score !== 'number' || !Number.isFinite(score)) throw complain(`token ${id} has no score`);
    texts.push(text);
    scores[id] = score;
  });
  const vocabulary = Vocabulary.fromList(texts, complain);
  const unknownId = node.member('unk_id').optionalCount(entries.length - 1);
  const model = new UnigramModel({
    vocabulary,
    scores,
    mayUse: (id) => id !== unknownId && !special.has(vocabulary.text(id) ?? ''),
    unknownId,
    byteIds: node.member('byte_fallback').flag(false) ? byteIdsOf(vocabulary) : null,
    fuseUnknown: true,
  });
  return { model, vocabulary, preTokenize: uncut };
}

function idOfMember(node: JsonNode, key: string, vocabulary: Vocabulary): number | null {
  const token = node.member(key).optionalText();
  if (token === null) return null;
  const id = vocabulary.id(token);
  if (id === null) throw node.complain(`${node.where}.${key} is ${JSON.stringify(token)}, which is no token`);
  return id;
}
