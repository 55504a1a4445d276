import { bytesToAlphabet } from '../../src/tokenizer/byte-alphabet.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';

/** The first id of the special tokens; those before it stand for bytes. */
export const firstSpecial = 256;

/** A tokenizer over bytes, with these special tokens and no merges. */
export function byteTokenizer(specialTexts: readonly string[]): Tokenizer {
  const vocab = Object.fromEntries(Array.from({ length: 256 }, (_, byte) => [bytesToAlphabet([byte]), byte]));
  const added_tokens = specialTexts.map((content, i) => ({ id: firstSpecial + i, content, special: true }));
  const json = {
    added_tokens,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  };
  return tokenizerFromJson(json, {}, 'bytes/tokenizer.json');
}
