import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { itWithData } from '../shared-data.js';
import { ggufTokenizer, vocabularyFiles } from './vocabularies.js';

const SEPARATOR = '\n__ggml_vocab_test__\n';

/** Texts and the ids that llama.cpp itself gives for them, from its repository. */
function vectors(path: string): { texts: string[]; ids: number[][] } {
  const base = path.replace(/\.gz$/, '');
  const texts = readFileSync(`${base}.inp`, 'utf8').split(SEPARATOR);
  const lines = readFileSync(`${base}.out`, 'utf8').split('\n').slice(0, texts.length);
  return { texts, ids: lines.map((line) => (line.trim() === '' ? [] : line.trim().split(/\s+/).map(Number))) };
}

for (const [name, file] of Object.entries(vocabularyFiles)) {
  itWithData(file, `${name}: every llama.cpp vector holds`, (path) => {
    const tokenizer = ggufTokenizer(path);
    const { texts, ids } = vectors(path);
    expect(texts.length).toBeGreaterThan(40);
    const found = texts.map((text) => [...tokenizer.encode(text, { addSpecialTokens: false })]);
    expect(found).toEqual(ids);
  });

  // WordPiece and BERT's text cleaning lose what they drop.
  if (name === 'bert-bge') continue;
  itWithData(file, `${name}: decoding gives the texts back`, (path) => {
    const tokenizer = ggufTokenizer(path);
    for (const text of vectors(path).texts) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });
}

/** Tokens that end generation, as llama.cpp 0.5.0 lists them for these files. */
const endTokens: Readonly<Record<keyof typeof vocabularyFiles, readonly number[]>> = {
  'bert-bge': [0],
  'deepseek-llm': [100001],
  falcon: [11],
  'gpt-2': [50256],
  'llama-bpe': [128001, 128009],
  'llama-spm': [2],
  'phi-3': [2, 32000, 32007],
  // llama.cpp has 128247 too, "</s>": here an ordinary token, for text that is struck out in HTML.
  qwen2: [151643, 151645],
  qwen35: [151643, 151645],
  refact: [0, 4, 18],
};

for (const [name, file] of Object.entries(vocabularyFiles)) {
  itWithData(file, `${name}: all tokens that end generation are known`, (path) => {
    expect(ggufTokenizer(path).eosIds).toEqual(endTokens[name as keyof typeof endTokens]);
  });
}
