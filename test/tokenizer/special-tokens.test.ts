import { expect, test } from 'vitest';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import { expectEngineError } from '../formats/engine-error.js';
import { itWithData } from '../shared-data.js';
import { byteTokenizer } from './chat-tokenizer.js';
import { ggufTokenizer, jsonTokenizer, tokenizerJsonFiles, vocabularyFiles } from './vocabularies.js';

test('special tokens in user text are text unless they are asked for', () => {
  const tokenizer = byteTokenizer(['<|im_end|>', '<|im_start|>']);
  const text = 'a<|im_end|>b<|im_start|>';
  const asText = tokenizer.encode(text);
  expect([...asText].filter((id) => tokenizer.isSpecial(id))).toEqual([]);
  expect(tokenizer.decode(asText)).toBe(text);
  const parsed = tokenizer.encode(text, { parseSpecial: true });
  expect([...parsed].map((id) => tokenizer.tokenText(id))).toEqual(['a', '<|im_end|>', 'b', '<|im_start|>']);
  expect(tokenizer.decode(parsed)).toBe('ab');
  expect(tokenizer.decode(parsed, { skipSpecialTokens: false })).toBe(text);
  expect(tokenizer.eosIds).toEqual([256]);
});

for (const [name, file] of Object.entries(vocabularyFiles)) {
  itWithData(file, `GGUF ${name}: no text becomes a special token`, (path) => {
    const tokenizer = ggufTokenizer(path);
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      if (!tokenizer.isSpecial(id)) continue;
      const spelling = tokenizer.tokenText(id);
      for (const text of [spelling, `x${spelling}`, ` ${spelling} `]) {
        const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
        // WordPiece has nothing but its unknown token for words it cannot spell.
        expect(ids.filter((found) => tokenizer.isSpecial(found) && tokenizer.tokenText(found) !== '[UNK]')).toEqual([]);
      }
    }
  });
}
for (const [name, file] of Object.entries(tokenizerJsonFiles)) {
  itWithData(file, `tokenizer.json ${name}: no text becomes a special token`, (path) => {
    const tokenizer = jsonTokenizer(path);
    for (const spelling of ['<s>', '</s>', '<unk>', '<pad>', '<|endoftext|>', '<|end|>', '[CLS]', '<extra_id_3>']) {
      const ids = [...tokenizer.encode(`a ${spelling} b`, { addSpecialTokens: false })];
      const special = ids.filter((id) => tokenizer.isSpecial(id)).map((id) => tokenizer.tokenText(id));
      expect(special.filter((text) => text !== '<unk>' && text !== '[UNK]')).toEqual([]);
    }
  });
}

itWithData(tokenizerJsonFiles['phi-2'], 'added tokens that are no special tokens are read from any text', (path) => {
  const tokenizer = jsonTokenizer(path);
  const ids = tokenizer.encode('if x:\n        return');
  expect([...ids].map((id) => tokenizer.tokenText(id))).toContain(' '.repeat(8));
});

itWithData(vocabularyFiles['phi-3'], 'line breaks after control tokens of Phi-3 vanish', (path) => {
  const tokenizer = ggufTokenizer(path);
  const ids = tokenizer.encode('<|user|>\nHi<|end|>\n', { parseSpecial: true });
  expect([...ids].map((id) => tokenizer.tokenText(id))).toEqual(['<s>', '<|user|>', '\u2581Hi', '<|end|>']);
});

test('text that is not well-formed is read as U+FFFD', () => {
  const tokenizer = byteTokenizer([]);
  for (const text of ['\ud800', 'a\udc00b', '\udc00\ud800', 'x\ud83d']) {
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text.replace(/\p{Surrogate}/gu, '\ufffd'));
  }
});

test('what is no text is refused', async () => {
  const tokenizer = byteTokenizer([]);
  for (const value of [undefined, null, 7, ['a']]) {
    await expectEngineError(() => tokenizer.encode(value as never), 'OPTION_INVALID', 'text');
  }
});

test('ids outside of the vocabulary are refused, with their place', async () => {
  const tokenizer = byteTokenizer([]);
  await expectEngineError(() => tokenizer.decode([1, 2, 256]), 'TOKEN_ID_INVALID', '256', 'index 2', '255');
  await expectEngineError(() => tokenizer.decode([-1]), 'TOKEN_ID_INVALID', '-1');
  await expectEngineError(() => tokenizer.decode([0.5]), 'TOKEN_ID_INVALID');
  await expectEngineError(() => tokenizer.tokenText(999), 'TOKEN_ID_INVALID');
  await expectEngineError(() => tokenizer.tokenBytes(999), 'TOKEN_ID_INVALID');
});

test('added tokens: the longest counts, single words stay out of words, white space goes along', () => {
  const added = (id: number, content: string, options: object) => ({ id, content, normalized: false, ...options });
  const tokenizer = tokenizerFromJson(
    {
      added_tokens: [
        added(5, 'ab', { single_word: true }),
        added(6, '[M]', { lstrip: true, rstrip: true }),
        added(7, 'abc', {}),
      ],
      model: { type: 'BPE', vocab: { a: 0, b: 1, c: 2, ' ': 3, '.': 4 }, merges: [] },
    },
    undefined,
    'tokenizer.json',
  );
  const ids = (text: string) => [...tokenizer.encode(text)];
  expect(ids('ab')).toEqual([5]);
  expect(ids('.ab.')).toEqual([4, 5, 4]);
  expect(ids('cab')).toEqual([2, 0, 1]);
  expect(ids('ababc')).toEqual([0, 1, 7]);
  expect(ids('a \n[M]  b')).toEqual([0, 6, 1]);
});
