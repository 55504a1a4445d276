import { expect, test } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { seededRandom } from '../tensor/random.js';

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
function mutated(value: unknown, random: () => number): unknown {
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

/** Makes a tokenizer and uses it; nothing but EngineErrors may come out. */
function exercise(make: () => Tokenizer): 'refused' | 'used' {
  let tokenizer: Tokenizer;
  try {
    tokenizer = make();
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return 'refused';
  }
  const ids = tokenizer.encode('ab <x>c\u00e9 \u{1f600}\ud800', { parseSpecial: true });
  for (const id of ids) expect(id).toBeLessThan(tokenizer.vocabSize);
  expect(typeof tokenizer.decode(ids)).toBe('string');
  return 'used';
}

const frame = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<x>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  special_tokens: { '<x>': { id: '<x>', ids: [4], tokens: ['<x>'] } },
};
const seeds: readonly object[] = [
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

test('a damaged tokenizer.json is refused or works; nothing else happens', () => {
  const random = seededRandom(21);
  const seen = { refused: 0, used: 0 };
  for (let round = 0; round < 4000; round++) {
    let json: unknown = seeds[round % seeds.length];
    for (let i = 0; i <= round % 3; i++) json = mutated(json, random);
    const config =
      round % 5 === 0 ? mutated({ bos_token: '<x>', add_bos_token: true, eos_token: { content: 'a' } }, random) : {};
    seen[exercise(() => tokenizerFromJson(json, config, 'tokenizer.json'))]++;
  }
  expect(seen.used).toBeGreaterThan(400);
  expect(seen.refused).toBeGreaterThan(400);
});

const metadata: readonly Readonly<Record<string, unknown>>[] = [
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

test('damaged GGUF metadata is refused or works; nothing else happens', () => {
  const random = seededRandom(22);
  const seen = { refused: 0, used: 0 };
  for (let round = 0; round < 4000; round++) {
    let entries: unknown = metadata[round % metadata.length];
    for (let i = 0; i < round % 4; i++) entries = mutated(entries, random);
    const keys = Object.entries(entries ?? {}).map(([key, value]) => [`tokenizer.ggml.${key}`, value] as const);
    seen[exercise(() => tokenizerFromGguf(new Map(keys), 'm.gguf'))]++;
  }
  expect(seen.used).toBeGreaterThan(400);
  expect(seen.refused).toBeGreaterThan(400);
});
