import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { memorySource } from '../../src/formats/byte-source.js';
import { readGguf } from '../../src/formats/gguf.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';

/** Bytes of a file of the shared data, unpacked if it is packed. */
export function unpacked(path: string): Buffer {
  const bytes = readFileSync(path);
  return path.endsWith('.gz') ? gunzipSync(bytes) : bytes;
}

export function ggufMetadata(path: string): ReadonlyMap<string, unknown> {
  return readGguf(memorySource(path, unpacked(path))).metadata;
}

export function ggufTokenizer(path: string): Tokenizer {
  return tokenizerFromGguf(ggufMetadata(path), path);
}

export function jsonTokenizer(path: string): Tokenizer {
  return tokenizerFromJson(JSON.parse(unpacked(path).toString('utf8')), undefined, path);
}

/** Files of the shared data that hold the vocabularies, by the names the tests use. */
export const vocabularyFiles = {
  'bert-bge': 'tokenizers/llamacpp_vocab/ggml-vocab-bert-bge.gguf',
  'deepseek-llm': 'tokenizers/llamacpp_vocab/ggml-vocab-deepseek-llm.gguf.gz',
  falcon: 'tokenizers/llamacpp_vocab/ggml-vocab-falcon.gguf.gz',
  'gpt-2': 'tokenizers/llamacpp_vocab/ggml-vocab-gpt-2.gguf.gz',
  'llama-bpe': 'tokenizers/llamacpp_vocab/ggml-vocab-llama-bpe.gguf.gz',
  'llama-spm': 'tokenizers/llamacpp_vocab/ggml-vocab-llama-spm.gguf',
  'phi-3': 'tokenizers/llamacpp_vocab/ggml-vocab-phi-3.gguf',
  qwen2: 'tokenizers/llamacpp_vocab/ggml-vocab-qwen2.gguf.gz',
  qwen35: 'tokenizers/llamacpp_vocab/ggml-vocab-qwen35.gguf.gz',
  refact: 'tokenizers/llamacpp_vocab/ggml-vocab-refact.gguf.gz',
} as const;

export const tokenizerJsonFiles = {
  gpt2: 'tokenizers/gpt2/tokenizer.json',
  'all-MiniLM-L6-v2': 'tokenizers/all-MiniLM-L6-v2/tokenizer.json',
  't5-small': 'tokenizers/t5-small/tokenizer.json.gz',
  falcon: 'tokenizers/falcon/tokenizer.json.gz',
  'roberta-base': 'tokenizers/roberta-base/tokenizer.json.gz',
  'phi-2': 'tokenizers/phi-2/tokenizer.json.gz',
  'phi-3-mini': 'tokenizers/phi-3-mini/tokenizer.json.gz',
  llama2: 'tokenizers/llama2/tokenizer.json',
} as const;
