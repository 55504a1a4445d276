import { readFileSync, statSync } from 'node:fs';
import { EngineError } from '../base/errors.js';
import { type ModelSource, openModel } from '../formats/hub.js';
import { tokenizerFromGguf } from '../tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../tokenizer/from-json.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';

/** Bytes; the largest in use (vocabularies of 262,144 tokens) have 35 MB. */
const MAX_TOKENIZER_JSON = 128 * 1024 * 1024;

/** The tokenizer of a model that is already open, or null if it has none. Throws TOKENIZER_INVALID. */
export function tokenizerOf(source: ModelSource): Tokenizer | null {
  if (source.format === 'gguf') {
    const model = source.metadata.get('tokenizer.ggml.model');
    // llama.cpp's converter writes "no_vocab" for models that are fed token ids.
    return model === undefined || model === 'no_vocab' ? null : tokenizerFromGguf(source.metadata, source.path);
  }
  const path = source.tokenizerJson;
  return path === undefined
    ? null
    : tokenizerFromJson(readTokenizerJson(path), source.tokenizerConfig, path, source.generationConfig);
}

/** The tokenizer of a model file or folder; no weights are read. Throws TOKENIZER_MISSING and what openModel throws. */
export async function openTokenizer(path: string): Promise<Tokenizer> {
  const tokenizer = tokenizerOf(await openModel(path));
  if (tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path });
  return tokenizer;
}

function readTokenizerJson(path: string): unknown {
  const { size } = statSync(path);
  if (size > MAX_TOKENIZER_JSON) {
    throw new EngineError('FORMAT_LIMIT', { path, field: 'file size', value: size, limit: MAX_TOKENIZER_JSON });
  }
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new EngineError('TOKENIZER_INVALID', { path, problem: (cause as Error).message }, { cause });
  }
}
