import { expect } from 'vitest';
import { memorySource } from '../../src/formats/byte-source.js';
import { readGguf } from '../../src/formats/gguf.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { itWithData } from '../shared-data.js';
import { unpacked, vocabularyFiles } from './vocabularies.js';

/** Processor time, so that a busy machine does not fail the test. Milliseconds. */
function processorTime(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

for (const name of ['qwen2', 'llama-bpe'] as const) {
  itWithData(vocabularyFiles[name], `${name}: header and tokenizer are there in under a second`, (path) => {
    const bytes = unpacked(path);
    const times = Array.from({ length: 3 }, () =>
      processorTime(() => {
        const { metadata } = readGguf(memorySource(path, bytes));
        expect(tokenizerFromGguf(metadata, path).encode('Hello').length).toBeGreaterThan(0);
      }),
    );
    expect(Math.min(...times)).toBeLessThan(1000);
  });
}

itWithData(vocabularyFiles['llama-spm'], 'a million characters without a space take seconds, not hours', (path) => {
  const { metadata } = readGguf(memorySource(path, unpacked(path)));
  const tokenizer = tokenizerFromGguf(metadata, path);
  const texts = ['a'.repeat(1e6), '\u2581'.repeat(1e6), ' '.repeat(1e6), '\n'.repeat(1e6)];
  expect(processorTime(() => texts.map((text) => tokenizer.encode(text)))).toBeLessThan(25_000);
});
