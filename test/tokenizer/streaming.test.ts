import { describe, expect, test } from 'vitest';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { decodeLossy } from '../../src/tokenizer/utf8.js';
import { itWithData } from '../shared-data.js';
import { seededRandom } from '../tensor/random.js';
import { byteTokenizer } from './chat-tokenizer.js';
import { ggufTokenizer, jsonTokenizer, tokenizerJsonFiles, vocabularyFiles } from './vocabularies.js';

/** Texts and random token ids, streamed in random portions, are what decoding all at once gives. */
function checkStreaming(tokenizer: Tokenizer, seed: number): void {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  for (let round = 0; round < 150; round++) {
    const ids = Int32Array.from({ length: below(40) }, () => below(tokenizer.vocabSize));
    const skipSpecialTokens = random() < 0.5;
    const whole = tokenizer.decode(ids, { skipSpecialTokens });
    const cut = below(ids.length + 1);
    const before = ids.subarray(0, cut);

    const decoder = tokenizer.stream({ skipSpecialTokens, after: [] });
    let streamed = '';
    for (let start = 0; start < ids.length; ) {
      const end = Math.min(ids.length, start + 1 + below(3));
      const text = decoder.push(ids.subarray(start, end));
      expect(text).not.toMatch(/\p{Surrogate}/u);
      streamed += text;
      start = end;
    }
    expect(streamed + decoder.flush()).toBe(whole);

    // Where the cut is no cut through a character, the two halves are the whole.
    const head = tokenizer.decode(before, { skipSpecialTokens });
    const tail = tokenizer.decode(ids.subarray(cut), { skipSpecialTokens, after: before });
    if (!whole.includes('\ufffd') && !head.includes('\ufffd')) expect(head + tail).toBe(whole);
  }
}

for (const [name, file] of Object.entries(vocabularyFiles)) {
  itWithData(file, `GGUF ${name}: streaming random ids is decoding them`, (path) => {
    checkStreaming(ggufTokenizer(path), 1);
  });
}
for (const [name, file] of Object.entries(tokenizerJsonFiles)) {
  itWithData(file, `tokenizer.json ${name}: streaming random ids is decoding them`, (path) => {
    checkStreaming(jsonTokenizer(path), 2);
  });
}

describe('characters of several tokens', () => {
  const tokenizer = byteTokenizer([]);
  const idsOf = (...bytes: number[]) => bytes.map((byte) => idOfByte(tokenizer, byte));

  test('nothing is emitted before a character is complete', () => {
    const decoder = tokenizer.stream();
    const emitted = idsOf(0xf0, 0x9f, 0x98, 0x80, 0x21).map((id) => decoder.push([id]));
    expect(emitted).toEqual(['', '', '', '\u{1f600}', '!']);
    expect(decoder.flush()).toBe('');
  });

  test('bytes that can never be text become U+FFFD at once, unfinished ones at the end', () => {
    const decoder = tokenizer.stream();
    expect(decoder.push(idsOf(0xff))).toBe('\ufffd');
    expect(decoder.push(idsOf(0xe2, 0x82))).toBe('');
    expect(decoder.push(idsOf(0x41))).toBe('\ufffdA');
    expect(decoder.push(idsOf(0xc3))).toBe('');
    expect(decoder.flush()).toBe('\ufffd');
    expect(decoder.flush()).toBe('');
  });

  test('any bytes in any portions are what a text decoder makes of them', () => {
    const random = seededRandom(3);
    // Mostly bytes near the edges of what UTF-8 allows.
    const edges = [0x41, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff];
    for (let round = 0; round < 3000; round++) {
      const bytes = Array.from({ length: 1 + Math.floor(random() * 9) }, () => edges[Math.floor(random() * 16)]!);
      const decoder = tokenizer.stream();
      const text = bytes.map((byte) => decoder.push(idsOf(byte))).join('') + decoder.flush();
      expect(text).toBe(decodeLossy(Uint8Array.from(bytes)));
    }
  });
});

function idOfByte(tokenizer: Tokenizer, byte: number): number {
  for (let id = 0; id < 256; id++) if (tokenizer.tokenBytes(id)[0] === byte) return id;
  throw new Error(`no token for byte ${byte}`);
}

test('the work for a token does not depend on those before it', () => {
  const tokenizer = byteTokenizer([]);
  const decoder = tokenizer.stream();
  const ids = tokenizer.encode('some words, ');
  const time = () => {
    const start = performance.now();
    for (let i = 0; i < 20_000; i++) decoder.push(ids);
    return performance.now() - start;
  };
  time();
  const first = time();
  for (let i = 0; i < 8; i++) time();
  // Re-decoding all of the text would take ten times as long by now.
  expect(time()).toBeLessThan(first * 5 + 50);
});

test('padding of the embedding table adds no text to a stream', () => {
  const tokenizer = byteTokenizer([]);
  expect(tokenizer.stream().push([tokenizer.vocabSize, tokenizer.vocabSize + 100])).toBe('');
});
