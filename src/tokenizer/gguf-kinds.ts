import { bertNormalizer } from './bert.js';
import { BpeModel } from './bpe.js';
import { toByteAlphabet } from './byte-alphabet.js';
import { Charsmap } from './charsmap.js';
import { wordPieceStep } from './decoder.js';
import { type GgufVocabulary, tokenType } from './gguf-vocabulary.js';
import { wordRules, wordSplitter } from './gguf-words.js';
import { GreedyModel } from './greedy.js';
import { rulesFromMerges, rulesFromScores } from './merges.js';
import { byteIdsOf, type TokenModel } from './model.js';
import { type Normalizer, unchanged } from './normalizer.js';
import { anywhere, atOnce, inSequence, partwise, replacing } from './partwise.js';
import { bertWords, changer, type PreTokenizer, sequence, splitter, uncut } from './pre-tokenizer.js';
import type { DecodingRules } from './token-text.js';
import { UnigramModel } from './unigram.js';
import { vocabularyLimits } from './vocabulary.js';
import { spaceMark, wordsAtMarks } from './word-marks.js';
import { WordPieceModel } from './word-models.js';

/** What the kinds of GGUF vocabularies differ in. */
export interface GgufKind {
  readonly model: TokenModel;
  readonly normalize: Normalizer;
  readonly preTokenize: PreTokenizer;
  readonly decoding: DecodingRules;
  /** Whether the tokens that begin and end a text are added unless the file says otherwise. */
  readonly addsBos: boolean;
  readonly addsEos: boolean;
}

type KindBuilder = (file: GgufVocabulary, specialIds: ReadonlySet<number>) => GgufKind;

const markSpaces = partwise((text) => text.replaceAll(' ', spaceMark), anywhere);
const showSpaces = (spelling: string) => spelling.replaceAll(spaceMark, ' ');

/** By `tokenizer.ggml.model`. */
export const ggufKinds: Readonly<Record<string, KindBuilder>> = {
  llama: sentencePiece,
  gpt2: byteLevel,
  gemma4: markedMerges,
  bert: wordPiece,
  t5: unigram,
  rwkv: greedyBytes,
};

/** SentencePiece's BPE: merges by score, unknown characters as bytes. */
function sentencePiece(file: GgufVocabulary): GgufKind {
  const { vocabulary, types } = file;
  const mayMerge = (id: number) =>
    types[id] !== tokenType.control && types[id] !== tokenType.unknown && types[id] !== tokenType.byte;
  const { rules, characters, partialCharacters } = rulesFromScores(vocabulary, requiredScores(file), mayMerge);
  const model = new BpeModel({
    rules,
    symbolOf: (character) => characters.get(character) ?? -1,
    vocabularySize: vocabulary.size,
    partialCharacters,
    byteIds: byteIdsOf(vocabulary),
    unknownId: file.idOr('unknown_token_id', 0),
    fuseUnknown: true,
  });
  const addSpace = file.flag('add_space_prefix') ?? true;
  return {
    model,
    normalize: addSpace ? inSequence([markSpaces, atOnce((text) => spaceMark + text)]) : markSpaces,
    preTokenize: wordsAtMarks(vocabulary, mayMerge),
    decoding: {
      steps: [showSpaces],
      bytes: 'fallback',
      ...(addSpace && { stripStart: { character: ' ', count: 1 } }),
    },
    addsBos: true,
    addsEos: false,
  };
}

/** GPT-2's BPE over bytes, with words cut as `tokenizer.ggml.pre` says. */
function byteLevel(file: GgufVocabulary, specialIds: ReadonlySet<number>): GgufKind {
  const { vocabulary, complain } = file;
  const words = wordRules(file.text('pre') ?? 'default', complain);
  const wholeWord = (word: string) => {
    const id = vocabulary.id(word);
    return id !== null && specialIds.has(id) ? null : id;
  };
  const model = new BpeModel({
    rules: rulesFromMerges(requiredMerges(file), vocabulary, (id) => specialIds.has(id), complain),
    symbolOf: (character) => vocabulary.id(character) ?? -1,
    vocabularySize: vocabulary.size,
    byteIds: null,
    unknownId: null,
    fuseUnknown: false,
    ...(words.ignoresMerges && { wholeWord }),
  });
  return {
    model,
    normalize: unchanged,
    preTokenize: sequence([wordSplitter(words, complain), changer(toByteAlphabet)]),
    decoding: { steps: [], bytes: 'alphabet' },
    addsBos: words.addsBos ?? false,
    addsEos: false,
  };
}

/** BPE by a merge list over SentencePiece's spelling, as Gemma 4 has it; lines are the words. */
function markedMerges(file: GgufVocabulary, specialIds: ReadonlySet<number>): GgufKind {
  const { vocabulary, complain } = file;
  const model = new BpeModel({
    rules: rulesFromMerges(requiredMerges(file), vocabulary, (id) => specialIds.has(id), complain),
    symbolOf: (character) => vocabulary.id(character) ?? -1,
    vocabularySize: vocabulary.size,
    byteIds: byteIdsOf(vocabulary),
    unknownId: null,
    fuseUnknown: false,
    // The merge list cannot spell line breaks.
    wholeWord: (word) => (word.startsWith('\n') ? vocabulary.id(word) : null),
  });
  return {
    model,
    normalize: markSpaces,
    preTokenize: splitter(/\n+/g, 'Isolated'),
    decoding: { steps: [showSpaces], bytes: 'fallback' },
    addsBos: true,
    addsEos: false,
  };
}

function wordPiece(file: GgufVocabulary): GgufKind {
  const { vocabulary } = file;
  const unknownId = file.idOr('unknown_token_id', 100);
  if (unknownId === null) throw file.complain('it has no unknown token');
  const lowercase = file.flag('normalizer.lowercase') ?? true;
  return {
    model: new WordPieceModel({ vocabulary, unknownId, continuingPrefix: '##', maxCharacters: 100 }),
    normalize: bertNormalizer({
      cleanText: true,
      separateHan: true,
      stripAccents: file.flag('normalizer.strip_accents') ?? lowercase,
      lowercase,
    }),
    preTokenize: bertWords(),
    decoding: { steps: [wordPieceStep('##', true)], bytes: 'none' },
    addsBos: true,
    addsEos: true,
  };
}

/** SentencePiece's unigram model with its normalisation table, as T5 has it. */
function unigram(file: GgufVocabulary): GgufKind {
  const { vocabulary, types } = file;
  const scores = Float64Array.from(requiredScores(file), (score, id) =>
    // Log probabilities are negative: tokens that the model's makers defined always win.
    types[id] === tokenType.userDefined ? 0 : score,
  );
  const mayUse = (id: number) =>
    types[id] === tokenType.normal || types[id] === tokenType.userDefined || types[id] === tokenType.unused;
  const addSpace = file.flag('add_space_prefix') ?? false;
  return {
    model: new UnigramModel({
      vocabulary,
      scores,
      mayUse,
      unknownId: file.idOr('unknown_token_id', 2),
      byteIds: null,
      fuseUnknown: true,
    }),
    normalize: sentencePieceNormalizer(file, addSpace),
    preTokenize: uncut,
    decoding: {
      steps: [showSpaces],
      bytes: 'fallback',
      ...(addSpace && { stripStart: { character: ' ', count: 1 } }),
    },
    addsBos: false,
    addsEos: true,
  };
}

function sentencePieceNormalizer(file: GgufVocabulary, addSpace: boolean): Normalizer {
  const table = file.list('precompiled_charsmap', 1 << 24);
  const charsmap = table === null ? null : new Charsmap(Uint8Array.from(table as ArrayLike<number>), file.complain);
  const mergeSpaces = file.flag('remove_extra_whitespaces') ?? false;
  const replaced: Normalizer = charsmap === null ? unchanged : (text) => charsmap.replaceLongest(text);
  if (!mergeSpaces) {
    // Behind the spaces that a text begins with there is one more.
    const spaced = atOnce((text) => (addSpace ? text.replace(/[^ ]/, ' $&') : text));
    return inSequence([replaced, spaced, markSpaces]);
  }
  const marked = atOnce((text) => (text === '' ? '' : spaceMark + text));
  return inSequence([replaced, atOnce(withoutOuterSpaces), marked, replacing(/ +/g, spaceMark)]);
}

function withoutOuterSpaces(text: string): string {
  let end = text.length;
  while (end > 0 && text.charCodeAt(end - 1) === 0x20) end--;
  return text.slice(Math.max(0, text.search(/[^ ]/)), end);
}

/** RWKV's "world" vocabulary: the longest token first, over bytes. Tokens are respelled in GPT-2's alphabet. */
function greedyBytes(file: GgufVocabulary, specialIds: ReadonlySet<number>): GgufKind {
  return {
    model: new GreedyModel(file.vocabulary, (id) => !specialIds.has(id)),
    normalize: unchanged,
    preTokenize: changer(toByteAlphabet),
    decoding: { steps: [], bytes: 'alphabet' },
    addsBos: false,
    addsEos: false,
  };
}

function requiredScores(file: GgufVocabulary): ArrayLike<number> {
  const scores = file.numbers('scores');
  if (scores === null) throw file.complain('tokenizer.ggml.scores is missing');
  return scores;
}

function requiredMerges(file: GgufVocabulary): readonly unknown[] {
  const merges = file.list('merges', vocabularyLimits.merges);
  if (merges === null) throw file.complain('tokenizer.ggml.merges is missing');
  return Array.from(merges);
}
