import { invariant } from '../base/errors.js';
import type { GgufValueToWrite } from '../formats/gguf-encode.js';
import { bytesToAlphabet } from '../tokenizer/byte-alphabet.js';
import { tokenType } from '../tokenizer/gguf-vocabulary.js';

const LETTERS = [...'abcdefghijklmnopqrstuvwxyz'];

/**
 * A vocabulary of the given size that any engine can load, as metadata: all bytes, and combinations of letters, the short
 * ones first. Every text can be encoded; what its tokens mean is nothing, as of the weights.
 */
export function syntheticVocabulary(
  kind: 'sentencepiece' | 'bytes',
  size: number,
): readonly (readonly [string, GgufValueToWrite])[] {
  return kind === 'sentencepiece' ? sentencePiece(size) : byteMerges(size);
}

/** Llama 1 and 2: pieces with scores, the mark ▁ for a space, and a token for each byte that no piece spells. */
function sentencePiece(size: number): [string, GgufValueToWrite][] {
  const mark = '\u2581';
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const tokens = ['<unk>', '<s>', '</s>', ...bytes];
  const types: number[] = [tokenType.unknown, tokenType.control, tokenType.control, ...bytes.map(() => tokenType.byte)];
  tokens.push(mark);
  // Every piece is a shorter one and a letter, so that merging by score arrives at it.
  for (const [stem, letter] of combinations()) {
    if (tokens.length < size) tokens.push(stem + letter);
    if (tokens.length < size) tokens.push(mark + stem + letter);
    if (tokens.length >= size) break;
  }
  while (types.length < tokens.length) types.push(tokenType.normal);
  invariant(tokens.length === size, `a vocabulary of ${size} tokens`);
  return [
    ['tokenizer.ggml.model', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'default' }],
    ['tokenizer.ggml.tokens', { type: 'array', of: 'string', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'array', of: 'float32', value: Float32Array.from(tokens, (_, id) => -id) }],
    ['tokenizer.ggml.token_type', { type: 'array', of: 'int32', value: types }],
    ['tokenizer.ggml.bos_token_id', { type: 'uint32', value: 1 }],
    ['tokenizer.ggml.eos_token_id', { type: 'uint32', value: 2 }],
    ['tokenizer.ggml.unknown_token_id', { type: 'uint32', value: 0 }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: true }],
  ];
}

/** Special tokens at the end of Llama 3's vocabulary; those with a name have its places. */
const NUM_SPECIAL = 256;
const specialNames: Readonly<Record<number, string>> = {
  0: '<|begin_of_text|>',
  1: '<|end_of_text|>',
  6: '<|start_header_id|>',
  7: '<|end_header_id|>',
  9: '<|eot_id|>',
};

/** Llama 3: bytes in GPT-2's alphabet and a list of merges, one for every token that is no byte. */
function byteMerges(size: number): [string, GgufValueToWrite][] {
  const tokens = Array.from({ length: 256 }, (_, byte) => bytesToAlphabet([byte]));
  const merges: string[] = [];
  const space = '\u0120';
  const numNormal = size - NUM_SPECIAL;
  const add = (stem: string, letter: string) => {
    if (tokens.length >= numNormal) return;
    merges.push(`${stem} ${letter}`);
    tokens.push(stem + letter);
  };
  for (const [stem, letter] of combinations()) {
    if (stem !== '') add(stem, letter);
    add(space + stem, letter);
    if (tokens.length >= numNormal) break;
  }
  invariant(tokens.length === numNormal, `a vocabulary of ${size} tokens`);
  for (let i = 0; i < NUM_SPECIAL; i++) tokens.push(specialNames[i] ?? `<|reserved_special_token_${i}|>`);
  const types = tokens.map((_, id) => (id < numNormal ? tokenType.normal : tokenType.control));
  return [
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'llama-bpe' }],
    ['tokenizer.ggml.tokens', { type: 'array', of: 'string', value: tokens }],
    ['tokenizer.ggml.token_type', { type: 'array', of: 'int32', value: types }],
    ['tokenizer.ggml.merges', { type: 'array', of: 'string', value: merges }],
    ['tokenizer.ggml.bos_token_id', { type: 'uint32', value: numNormal }],
    ['tokenizer.ggml.eos_token_id', { type: 'uint32', value: numNormal + 1 }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: true }],
  ];
}

/** All texts of letters as a shorter text and a letter: of one letter first, then of two, and so on without end. */
function* combinations(): Generator<readonly [stem: string, letter: string]> {
  let stems = [''];
  for (;;) {
    const longer: string[] = [];
    for (const stem of stems) {
      for (const letter of LETTERS) {
        yield [stem, letter];
        longer.push(stem + letter);
      }
    }
    stems = longer;
  }
}
