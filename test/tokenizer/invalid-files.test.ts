import { describe, expect, test } from 'vitest';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import { expectEngineError } from '../formats/engine-error.js';

const bpe = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] };
const valid = { added_tokens: [{ id: 3, content: '<x>', special: true }], model: bpe, decoder: { type: 'Fuse' } };

test('the file the faults are put into is valid', () => {
  const tokenizer = tokenizerFromJson(valid, undefined, 'tokenizer.json');
  expect([...tokenizer.encode('aab<x>', { parseSpecial: true })]).toEqual([0, 2, 3]);
});

describe('tokenizer.json: what is wrong is named', () => {
  const faults: readonly [string, unknown, readonly string[]][] = [
    ['no object', [], ['a list', 'an object']],
    ['null', null, ['an object']],
    ['no model', {}, ['model']],
    ['no vocabulary', { model: { type: 'BPE', merges: [] } }, ['model.vocab']],
    ['an unknown model', { model: { ...bpe, type: 'Magic' } }, ['Magic']],
    ['an id that is no number', { model: { ...bpe, vocab: { a: '0' } } }, ['"a"', 'id 0']],
    ['an id that cannot be shown', { model: { ...bpe, vocab: { a: Object.create(null) } } }, ['"a"', 'an object']],
    ['a negative id', { model: { ...bpe, vocab: { a: -1 } } }, ['-1']],
    ['an id beyond the cap', { model: { ...bpe, vocab: { a: 1e9 } } }, ['1000000000']],
    ['two tokens of one id', { model: { ...bpe, vocab: { a: 0, b: 0 } } }, ['"a"', '"b"', 'same id']],
    ['no merges', { model: { type: 'BPE', vocab: bpe.vocab } }, ['model.merges']],
    ['a merge of one side', { model: { ...bpe, merges: ['ab'] } }, ['merge 0']],
    ['a merge of three sides', { model: { ...bpe, merges: [['a', 'b', 'c']] } }, ['merge 0']],
    ['a merge of unknown tokens', { model: { ...bpe, merges: ['a c'] } }, ['merge 0', '"c"']],
    ['a merge whose result is no token', { model: { ...bpe, merges: ['b a'] } }, ['"ba"']],
    ['an unknown token that is none', { model: { ...bpe, unk_token: '?' } }, ['unk_token', '?']],
    ['a score that is none', { model: { type: 'Unigram', vocab: [['a', null]] } }, ['token 0']],
    ['an unk_id outside', { model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 7 } }, ['unk_id', '7']],
    [
      'a token twice',
      {
        model: {
          type: 'Unigram',
          vocab: [
            ['a', 0],
            ['a', 1],
          ],
        },
      },
      ['"a"', 'two ids'],
    ],
    ['WordPiece without unknown', { model: { type: 'WordPiece', vocab: { a: 0 } } }, ['unk_token']],
    ['an added token without text', { ...valid, added_tokens: [{ id: 1 }] }, ['added_tokens[0].content']],
    ['an added token of a taken id', { ...valid, added_tokens: [{ id: 0, content: 'q' }] }, ['same id 0']],
    ['an unknown normalizer', { ...valid, normalizer: { type: 'Odd' } }, ['normalizer Odd']],
    ['an unknown pre-tokenizer', { ...valid, pre_tokenizer: { type: 'Odd' } }, ['pre-tokenizer Odd']],
    ['an unknown post-processor', { ...valid, post_processor: { type: 'Odd' } }, ['post-processor Odd']],
    ['an unknown decoder', { ...valid, decoder: { type: 'CTC' } }, ['decoder CTC']],
    ['a broken pattern', { ...valid, pre_tokenizer: split('(') }, ['pattern', '"("']],
    ['steps within steps without end', { ...valid, normalizer: nested(100_000) }, ['nested', '100']],
    ['an endless pattern', { ...valid, pre_tokenizer: split('a'.repeat(30_000)) }, ['30000']],
    [
      'a frame of ids outside',
      { ...valid, post_processor: { type: 'BertProcessing', cls: ['x', 9], sep: ['x', 1] } },
      ['9'],
    ],
    [
      'a damaged normalisation table',
      { ...valid, normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } },
      ['table'],
    ],
  ];
  test.each(faults)('%s', async (_, json, parts) => {
    await expectEngineError(
      () => tokenizerFromJson(json, undefined, 'm/tokenizer.json'),
      'TOKENIZER_INVALID',
      'm/tokenizer.json',
      ...parts,
    );
  });
});

function nested(depth: number): object {
  let normalizer: object = { type: 'NFC' };
  for (let i = 0; i < depth; i++) normalizer = { type: 'Sequence', normalizers: [normalizer] };
  return normalizer;
}

function split(pattern: string): object {
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

function gguf(entries: Readonly<Record<string, unknown>>): ReadonlyMap<string, unknown> {
  return new Map(Object.entries(entries).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
}

const byteLevel = { model: 'gpt2', pre: 'gpt-2', tokens: ['a', 'b', 'ab'], merges: ['a b'] };
const sentencePiece = { model: 'llama', tokens: ['<unk>', '<s>', '</s>', 'a'], scores: new Float32Array(4) };

test('the metadata the faults are put into is valid', () => {
  expect([...tokenizerFromGguf(gguf(byteLevel), 'm.gguf').encode('aab')]).toEqual([0, 2]);
  expect([...tokenizerFromGguf(gguf(sentencePiece), 'm.gguf').encode('a')]).toEqual([1, 0, 3]);
});

describe('GGUF: what is wrong is named', () => {
  const faults: readonly [string, object, readonly string[]][] = [
    ['an unknown model', { ...byteLevel, model: 'plamo2' }, ['"plamo2"', 'supported']],
    ['a model that is no text', { ...byteLevel, model: 3 }, ['tokenizer.ggml.model']],
    ['an unknown pre-tokenizer', { ...byteLevel, pre: 'nobody' }, ['"nobody"', 'gpt-2']],
    ['a pre-tokenizer of Object', { ...byteLevel, pre: 'constructor' }, ['"constructor"']],
    ['no tokens', { ...byteLevel, tokens: [] }, ['tokens is missing']],
    ['tokens that are no list', { ...byteLevel, tokens: 'abc' }, ['tokens', 'a list']],
    ['a token that is no text', { ...byteLevel, tokens: ['a', 7, 'ab'] }, ['token 1', 'number']],
    ['a token twice', { ...byteLevel, tokens: ['a', 'b', 'ab', 'a'] }, ['"a"', '0 and 3']],
    ['no merges', { model: 'gpt2', tokens: ['a'] }, ['merges is missing']],
    ['a merge that is no text', { ...byteLevel, merges: [5] }, ['merge 0']],
    ['a merge of unknown tokens', { ...byteLevel, merges: ['a c'] }, ['"c"']],
    ['no scores', { ...sentencePiece, scores: undefined }, ['scores is missing']],
    ['too few scores', { ...sentencePiece, scores: new Float32Array(3) }, ['scores', '3', '4 tokens']],
    ['a score that is no number', { ...sentencePiece, scores: [0, 0, Number.NaN, 0] }, ['scores[2]']],
    ['too many types', { ...sentencePiece, token_type: new Int32Array(5) }, ['token_type', '5']],
    ['a first token outside', { ...sentencePiece, bos_token_id: 4 }, ['bos_token_id', '4', '0 to 3']],
    ['a last token that is no id', { ...sentencePiece, eos_token_id: 1.5 }, ['eos_token_id']],
    ['a first token that is missing', { ...byteLevel, add_bos_token: true }, ['bos_token_id']],
    ['a flag that is none', { ...sentencePiece, add_space_prefix: 'yes' }, ['add_space_prefix']],
  ];
  test.each(faults)('%s', async (_, entries, parts) => {
    const metadata = gguf(entries as Record<string, unknown>);
    await expectEngineError(() => tokenizerFromGguf(metadata, 'm.gguf'), 'TOKENIZER_INVALID', 'm.gguf', ...parts);
  });

  test('a file without a vocabulary says so', async () => {
    for (const entries of [{}, { model: 'no_vocab' }, { model: 'none' }]) {
      await expectEngineError(() => tokenizerFromGguf(gguf(entries), 'm.gguf'), 'TOKENIZER_MISSING', 'm.gguf');
    }
  });
});
