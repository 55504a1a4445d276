import { expect, test } from 'vitest';
import { fuzzFormats } from './fuzz.js';

test('20,000 mutated headers are read or refused with an EngineError, soon and with little memory', () => {
  const { failures, accepted, refused } = fuzzFormats({ count: 20_000, seed: 1 });
  expect(failures).toEqual([]);
  // The mutations reach past the first check: some files are still good, others fail in many ways.
  for (const format of ['gguf', 'safetensors', 'config']) {
    expect(accepted[format]).toBeGreaterThan(50);
    expect(refused[`${format} FORMAT_INVALID`]).toBeGreaterThan(500);
  }
  expect(accepted.tokenizer).toBeGreaterThan(500);
  expect(refused['tokenizer TOKENIZER_INVALID']).toBeGreaterThan(500);
  expect(refused['gguf FORMAT_LIMIT']).toBeGreaterThan(100);
  expect(refused['gguf DTYPE_UNSUPPORTED']).toBeGreaterThan(0);
});
