import { expect, test } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { seededRandom } from '../tensor/random.js';
import { mutated, tokenizerJsons, tokenizerMetadata, use } from './mutation.js';

/** Makes a tokenizer and uses it; nothing but EngineErrors may come out. */
function exercise(make: () => Tokenizer): 'refused' | 'used' {
  let tokenizer: Tokenizer;
  try {
    tokenizer = make();
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return 'refused';
  }
  use(tokenizer);
  return 'used';
}

test('a damaged tokenizer.json is refused or works; nothing else happens', () => {
  const random = seededRandom(21);
  const seen = { refused: 0, used: 0 };
  for (let round = 0; round < 4000; round++) {
    let json: unknown = tokenizerJsons[round % tokenizerJsons.length];
    for (let i = 0; i <= round % 3; i++) json = mutated(json, random);
    const config =
      round % 5 === 0 ? mutated({ bos_token: '<x>', add_bos_token: true, eos_token: { content: 'a' } }, random) : {};
    seen[exercise(() => tokenizerFromJson(json, config, 'tokenizer.json'))]++;
  }
  expect(seen.used).toBeGreaterThan(400);
  expect(seen.refused).toBeGreaterThan(400);
});

test('damaged GGUF metadata is refused or works; nothing else happens', () => {
  const random = seededRandom(22);
  const seen = { refused: 0, used: 0 };
  for (let round = 0; round < 4000; round++) {
    let entries: unknown = tokenizerMetadata[round % tokenizerMetadata.length];
    for (let i = 0; i < round % 4; i++) entries = mutated(entries, random);
    const keys = Object.entries(entries ?? {}).map(([key, value]) => [`tokenizer.ggml.${key}`, value] as const);
    seen[exercise(() => tokenizerFromGguf(new Map(keys), 'm.gguf'))]++;
  }
  expect(seen.used).toBeGreaterThan(400);
  expect(seen.refused).toBeGreaterThan(400);
});
