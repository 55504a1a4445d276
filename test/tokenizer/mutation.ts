import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';

const frame = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<x>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  special_tokens: { '<x>': { id: '<x>', ids: [4], tokens: ['<x>'] } },
};
/** Small tokenizer.json files, as parsed. */
export const tokenizerJsons: readonly object[] = [
  {
    added_tokens: [{ id: 4, content: '<x>', special: true, lstrip: true, normalized: true }],
    normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Prepend', prepend: '\u2581' }] },
    pre_tokenizer: { type: 'Split', pattern: { Regex: '\\s+' }, behavior: 'Isolated', invert: false },
    post_processor: frame,
    decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
    model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, '?': 3 }, merges: [['a', 'b']], unk_token: '?', fuse_unk: true },
  },
  {
    pre_tokenizer: { type: 'Metaspace', replacement: '\u2581', prepend_scheme: 'first', split: true },
    decoder: { type: 'Metaspace', replacement: '\u2581' },
    model: {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['a', -1],
        ['ab', -1.5],
        ['\u2581', -2],
      ],
    },
  },
  {
    normalizer: { type: 'BertNormalizer', lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: { type: 'WordPiece', vocab: { '[UNK]': 0, a: 1, '##b': 2 }, unk_token: '[UNK]' },
  },
];

/** The same of GGUF, without `tokenizer.ggml.`. */
export const tokenizerMetadata: readonly Readonly<Record<string, unknown>>[] = [
  {
    model: 'gpt2',
    pre: 'qwen2',
    tokens: ['a', 'b', 'ab', '<x>'],
    merges: ['a b'],
    token_type: [1, 1, 1, 3],
    bos_token_id: 3,
  },
  {
    model: 'llama',
    tokens: ['<unk>', '<s>', '</s>', 'a', 'ab', '<0x62>'],
    scores: [0, 0, 0, -1, -2, 0],
    token_type: [2, 3, 3, 1, 1, 6],
    add_bos_token: true,
  },
  {
    model: 't5',
    tokens: ['p', 'e', '<unk>', 'a', '\u2581'],
    scores: [0, 0, 0, -1, -2],
    precompiled_charsmap: [4, 0, 0, 0, 9, 9, 9, 9, 0],
  },
  { model: 'bert', tokens: ['[UNK]', '\u2581a', 'b'], bos_token_id: 0, seperator_token_id: 0, unknown_token_id: 0 },
  { model: 'rwkv', tokens: ['<s>', 'a', '\\xff', '\\n'] },
];

const odd: readonly unknown[] = [
  null,
  true,
  -1,
  0.5,
  1e12,
  Number.NaN,
  '',
  'x',
  '\ud800',
  '__proto__',
  [],
  [[]],
  {},
  'a',
];

/** A copy of a value with something in it replaced, removed or added. */
export function mutated(value: unknown, random: () => number): unknown {
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
  if (typeof value !== 'object' || value === null || random() < 0.1) return pick(odd);
  if (Array.isArray(value)) {
    const copy = [...value];
    const index = Math.floor(random() * (copy.length + 1));
    copy[index] = index < copy.length && random() < 0.7 ? mutated(copy[index], random) : pick(odd);
    return copy;
  }
  const copy: Record<string, unknown> = { ...value };
  const key = pick(Object.keys(copy).concat('extra'));
  if (random() < 0.2) delete copy[key];
  else copy[key] = mutated(copy[key], random);
  return copy;
}

/** Encodes and decodes something; throws an Error if the tokenizer contradicts itself. */
export function use(tokenizer: Tokenizer): void {
  const ids = tokenizer.encode('ab <x>c\u00e9 \u{1f600}\ud800', { parseSpecial: true });
  for (const id of ids) if (id >= tokenizer.vocabSize) throw new Error(`token id ${id} of ${tokenizer.vocabSize}`);
  tokenizer.decode(ids);
}
