import { describe, expect, test } from 'vitest';
import { wordRules, wordSplitter } from '../../src/tokenizer/gguf-words.js';
import { JsonNode } from '../../src/tokenizer/json-node.js';
import { normalizerFromJson } from '../../src/tokenizer/normalizer.js';
import { type PreTokenizer, preTokenizerFromJson } from '../../src/tokenizer/pre-tokenizer.js';
import { complainAbout } from '../../src/tokenizer/problem.js';
import { finish } from '../../src/tokenizer/work.js';

const complain = complainAbout('tokenizer.json');
const node = (value: unknown) => new JsonNode(value, 'x', complain);
const digits = (behavior: string) => ({ type: 'Split', pattern: { Regex: '\\d' }, behavior, invert: false });
const metaspace = (prepend_scheme: string, split: boolean) => ({
  type: 'Metaspace',
  replacement: '\u2581',
  prepend_scheme,
  split,
});
const wordsThenMarks = {
  type: 'Sequence',
  pretokenizers: [{ type: 'WhitespaceSplit' }, metaspace('first', true)],
};

const cut = (split: PreTokenizer, text: string) =>
  [...split({ texts: [text], fromStart: true })].flatMap(({ texts }) => texts);

/** What the tokenizers library (0.23) makes of these. */
const preTokenizers: readonly [object, string, readonly string[]][] = [
  [digits('Isolated'), '12ab3 c', ['1', '2', 'ab', '3', ' c']],
  [digits('Removed'), '12ab3 c', ['ab', ' c']],
  [digits('Contiguous'), '12ab3 c', ['12', 'ab', '3', ' c']],
  [digits('MergedWithPrevious'), '12ab3 c', ['1', '2', 'ab3', ' c']],
  [digits('MergedWithNext'), '12ab3 c', ['1', '2ab', '3 c']],
  [
    { type: 'Split', pattern: { Regex: '\\p{L}+' }, behavior: 'Removed', invert: true },
    'don\u2019t stop, \u00e9t\u00e9!',
    ['don', 't', 'stop', '\u00e9t\u00e9'],
  ],
  [
    { type: 'Split', pattern: { String: '.' }, behavior: 'MergedWithPrevious', invert: false },
    'a.b..c',
    ['a.', 'b.', '.', 'c'],
  ],
  [
    { type: 'Split', pattern: { Regex: '(?=(\\d{3})+(?!\\d))' }, behavior: 'Isolated', invert: false },
    '1234567 12',
    ['1', '234', '567 12'],
  ],
  [
    { type: 'Punctuation', behavior: 'Contiguous' },
    'Wait... what?! \u00bfya\u00bb 50% a+b',
    ['Wait', '...', ' what', '?!', ' ', '\u00bf', 'ya', '\u00bb', ' 50', '%', ' a', '+', 'b'],
  ],
  [{ type: 'Punctuation' }, 'a--b\u3002', ['a', '-', '-', 'b', '\u3002']],
  [
    { type: 'Digits', individual_digits: true },
    'a12\u0664\u00bd\u2167b',
    ['a', '1', '2', '\u0664', '\u00bd', '\u2167', 'b'],
  ],
  [{ type: 'Digits', individual_digits: false }, 'a12\u0664\u00bd\u2167b', ['a', '12\u0664\u00bd\u2167', 'b']],
  [
    { type: 'Whitespace' },
    'na\u00efve_x 3.5\u20ac\u200d\u0301',
    ['na\u00efve_x', '3', '.', '5', '\u20ac', '\u200d\u0301'],
  ],
  [{ type: 'WhitespaceSplit' }, ' a\u00a0b\u0085c\ufeffd\u3000', ['a', 'b', 'c\ufeffd']],
  [{ type: 'BertPreTokenizer' }, ' Hi,\u3000you_there\u2014now', ['Hi', ',', 'you', '_', 'there', '\u2014', 'now']],
  [{ type: 'CharDelimiterSplit', delimiter: '-' }, 'a-b--c', ['a', 'b', 'c']],
  [{ type: 'FixedLength', length: 2 }, 'ab\u{1f600}cd\u00e9', ['ab', '\u{1f600}c', 'd\u00e9']],
  [metaspace('always', true), ' two  words', ['\u2581two', '\u2581', '\u2581words']],
  [metaspace('first', true), 'two words ', ['\u2581two', '\u2581words', '\u2581']],
  [metaspace('never', false), 'two words', ['two\u2581words']],
  [wordsThenMarks, 'two words', ['\u2581two', 'words']],
  [wordsThenMarks, ' two words', ['two', 'words']],
  [
    { type: 'ByteLevel', add_prefix_space: true, use_regex: true },
    "I'll  pay 20\u20ac\u0085\n x",
    ['\u0120I', "'ll", '\u0120', '\u0120pay', '\u012020', '\u00e2\u0124\u00ac', '\u00c2\u0127\u010a', '\u0120x'],
  ],
  [{ type: 'ByteLevel', add_prefix_space: false, use_regex: false }, 'a b\u00e9', ['a\u0120b\u00c3\u00a9']],
];

describe('pre-tokenizers cut as the tokenizers library does', () => {
  test.each(preTokenizers)('%j of %j', (config, text, words) => {
    expect(cut(preTokenizerFromJson(node(config)), text)).toEqual(words);
  });
});

const bert = { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null };

const normalizers: readonly [object, string, string][] = [
  [{ type: 'Lowercase' }, '\u039f\u0394\u039f\u03a3 \u0130I', '\u03bf\u03b4\u03bf\u03c3 i\u0307i'],
  [{ type: 'StripAccents' }, 'e\u0301\u0903x', 'ex'],
  [{ type: 'Strip', strip_left: true, strip_right: true }, '\u0085 \ufeffa b\u3000\n', '\ufeffa b'],
  [{ type: 'Strip', strip_left: false, strip_right: true }, ' a ', ' a'],
  [{ type: 'Replace', pattern: { Regex: ' {2,}' }, content: '$1' }, 'a  b', 'a$1b'],
  [{ type: 'Replace', pattern: { String: 'a.' }, content: 'x' }, 'a.ab a.', 'xab x'],
  [{ type: 'Prepend', prepend: '\u2581' }, 'a', '\u2581a'],
  [{ type: 'Prepend', prepend: '\u2581' }, '', ''],
  [{ type: 'NFKD' }, '\ufb01\u00e9', 'fie\u0301'],
  [{ type: 'NFC' }, 'e\u0301', '\u00e9'],
  [{ type: 'Nmt' }, 'a\u0001b\u200bc\td', 'ab c d'],
  [{ type: 'ByteLevel' }, '\u00e9 ', '\u00c3\u00a9\u0120'],
  [{ ...bert, lowercase: true }, '\u00c9t\u00e9\t\u0000\u4e2d\u6587\ufffd\u200bX', 'ete  \u4e2d  \u6587 x'],
  [
    { ...bert, clean_text: false, handle_chinese_chars: false, strip_accents: true, lowercase: false },
    '\u00c9\u4e2d\t',
    'E\u4e2d\t',
  ],
  [
    { type: 'Sequence', normalizers: [{ type: 'NFD' }, { type: 'StripAccents' }, { type: 'Lowercase' }] },
    '\u00c9CLAIR',
    'eclair',
  ],
];

describe('normalizers change text as the tokenizers library does', () => {
  test.each(normalizers)('%j of %j', (config, text, normalized) => {
    expect(finish(normalizerFromJson(node(config))(text))).toBe(normalized);
  });
});

/** Words by `tokenizer.ggml.pre`, checked against the models' own patterns in the tokenizers library. */
const words: readonly [string, string, readonly string[]][] = [
  ['gpt-2', "I'll  pay 1234!", ['I', "'ll", ' ', ' pay', ' 1234', '!']],
  ['llama-bpe', "I'LL  pay 1234!\n\n", ['I', "'LL", ' ', ' pay', ' ', '123', '4', '!\n\n']],
  ['qwen2', 'a 12\u0303\n b', ['a', ' ', '1', '2', '\u0303\n', ' b']],
  ['qwen35', 'e\u0301t 12\n b', ['e\u0301t', ' ', '1', '2', '\n', ' b']],
  ['gpt-4o', 'MacDonald HTTPServer 1234', ['Mac', 'Donald', ' HTTPServer', ' ', '123', '4']],
  ['tekken', 'MacDonald 12/\n', ['Mac', 'Donald', ' ', '1', '2', '/\n']],
  ['falcon', 'a 12345 $x', ['a', ' ', '123', '45', ' ', '$', 'x']],
  ['starcoder', 'a 12 b', ['a', ' ', '1', '2', ' b']],
  ['deepseek-llm', 'ab\u4e2d\u6587 12\n', ['ab', '\u4e2d\u6587', ' ', '12', '\n']],
  ['deepseek-v3', 'ab\u4e2d\u6587 1234\n', ['ab', '\u4e2d\u6587', ' ', '123', '4', '\n']],
  ['afmoe', 'a1234567', ['a', '1', '234', '567']],
  ['bloom', 'Hi, you there.', ['Hi', ',', ' you', ' there', '.']],
];

describe('words of GGUF vocabularies', () => {
  test.each(words)('%s of %j', (name, text, expected) => {
    const split = wordSplitter(wordRules(name, complain), complain);
    expect(cut(split, text)).toEqual(expected);
  });
});
