import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { withoutTokenizationSpaces } from '../../src/tokenizer/decoder.js';
import { itWithData, sharedData } from '../shared-data.js';
import { ggufTokenizer, jsonTokenizer, tokenizerJsonFiles, vocabularyFiles } from './vocabularies.js';

interface Vector {
  readonly text: string;
  readonly ids: number[];
  readonly decoded: string;
}

/** Sets of vectors that transformers.js publishes, and the tokenizer.json at hand that has their vocabulary. */
const sets: readonly [string, keyof typeof tokenizerJsonFiles][] = [
  ['Xenova__gpt2', 'gpt2'],
  ['openai-community__gpt2', 'gpt2'],
  ['tiiuae__falcon-rw-1b', 'gpt2'],
  ['tiiuae__falcon-7b', 'falcon'],
  ['Xenova__all-distilroberta-v1', 'roberta-base'],
  ['Xenova__t5-small', 't5-small'],
  ['google-t5__t5-small', 't5-small'],
  ['Xenova__bert-base-uncased', 'all-MiniLM-L6-v2'],
  ['Xenova__distilbert-base-uncased-finetuned-sst-2-english', 'all-MiniLM-L6-v2'],
  ['Xenova__llama-tokenizer', 'llama2'],
];

/** Vectors that cannot hold, each with the reason. */
const exceptions: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'Xenova__bert-base-uncased': { TEXT_PAIR: 'two texts in one sequence, which encode() does not offer' },
  'Xenova__llama-tokenizer': Object.fromEntries(
    ['LEADING_SPACE', 'DOUBLE_SPACE', 'SPIECE_UNDERSCORE', 'BPE_SCORES_PRIORITY_2', 'BPE_SCORES_PRIORITY_3'].map(
      (name) => [name, 'the tokenizer.json at hand ranks runs of spaces first; the GGUF vocabulary below does not'],
    ),
  ),
};

function readVectors(set: string): [string, Vector][] {
  const path = sharedData(`tokenizers/vectors-transformersjs/${set}.json`);
  return Object.entries(JSON.parse(readFileSync(path!, 'utf8')) as Record<string, Vector>);
}

describe('vectors of transformers.js', () => {
  for (const [set, name] of sets) {
    const allowed = exceptions[set] ?? {};
    const but = Object.keys(allowed).length === 0 ? '' : ` but ${Object.keys(allowed).length}`;
    itWithData(tokenizerJsonFiles[name], `${set}: ids of all${but}, text of all`, (path) => {
      const tokenizer = jsonTokenizer(path);
      const different: string[] = [];
      for (const [key, { text, ids, decoded }] of readVectors(set)) {
        const found = tokenizer.encode(text, { parseSpecial: true });
        if ([...found].join() !== ids.join()) different.push(key);
        const shown = tokenizer.decode(ids, { skipSpecialTokens: false });
        // Some of these tokenizers were run with transformers' clean-up of spaces.
        expect([shown, withoutTokenizationSpaces(shown)], key).toContain(decoded);
      }
      expect(different).toEqual(Object.keys(allowed));
    });
  }

  itWithData(vocabularyFiles['llama-spm'], 'Xenova__llama-tokenizer: ids of all, from the GGUF vocabulary', (path) => {
    const tokenizer = ggufTokenizer(path);
    for (const [key, { text, ids }] of readVectors('Xenova__llama-tokenizer')) {
      expect([...tokenizer.encode(text, { parseSpecial: true })], key).toEqual(ids);
    }
  });
});

interface SwiftCase {
  readonly input: string;
  readonly encoded: { readonly input_ids: number[] };
  readonly decoded_with_special: string;
  readonly decoded_without_special: string;
}

const swiftSets: readonly [string, keyof typeof tokenizerJsonFiles, readonly string[]][] = [
  ['bert-base-uncased', 'all-MiniLM-L6-v2', []],
  ['google-bert/bert-base-uncased', 'all-MiniLM-L6-v2', []],
  ['distilgpt2', 'gpt2', []],
  ['tiiuae/falcon-7b', 'falcon', []],
  ['t5-base', 't5-small', []],
  // The tokenizer.json at hand ranks runs of spaces first.
  ['coreml-projects/Llama-2-7b-chat-coreml', 'llama2', ['Hi  Hello', '   leading space']],
];

describe('vectors of swift-transformers', () => {
  for (const [set, name, exceptional] of swiftSets) {
    itWithData(tokenizerJsonFiles[name], `${set}: ids and texts`, (path) => {
      const tokenizer = jsonTokenizer(path);
      const file = sharedData(join('tokenizers/vectors-swift', 'tokenizer_tests.json'));
      const cases = (JSON.parse(readFileSync(file!, 'utf8')) as Record<string, SwiftCase[]>)[set]!;
      const different: string[] = [];
      for (const { input, encoded, decoded_with_special, decoded_without_special } of cases) {
        const ids = encoded.input_ids;
        if ([...tokenizer.encode(input, { parseSpecial: true })].join() !== ids.join()) different.push(input);
        const whole = tokenizer.decode(ids, { skipSpecialTokens: false });
        expect([whole, withoutTokenizationSpaces(whole)]).toContain(decoded_with_special);
        const visible = tokenizer.decode(ids);
        expect([visible, withoutTokenizationSpaces(visible)]).toContain(decoded_without_special);
      }
      expect(different).toEqual(exceptional);
    });
  }
});
