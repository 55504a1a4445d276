import { EngineError } from '../base/errors.js';
import { respelled } from './gguf-spelling.js';
import { type Complain, complainAbout } from './problem.js';
import { Vocabulary, vocabularyLimits } from './vocabulary.js';

/** Kinds of tokens, numbered as in `tokenizer.ggml.token_type` (ggml's docs/gguf.md). */
export const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Typed reading of the `tokenizer.ggml.` keys of a GGUF file, and of its vocabulary. */
export class GgufVocabulary {
  readonly complain: Complain;
  /** `tokenizer.ggml.model` */
  readonly model: string;
  readonly vocabulary: Vocabulary;
  /** [vocabulary size] */
  readonly types: ArrayLike<number>;
  readonly #metadata: ReadonlyMap<string, unknown>;

  /** Throws TOKENIZER_MISSING if the file has no vocabulary, else TOKENIZER_INVALID. */
  constructor(metadata: ReadonlyMap<string, unknown>, path: string) {
    this.#metadata = metadata;
    this.complain = complainAbout(path);
    this.model = this.text('model') ?? 'none';
    // llama.cpp's converter writes these for models that are fed token ids.
    if (this.model === 'none' || this.model === 'no_vocab') throw new EngineError('TOKENIZER_MISSING', { path });

    const tokens = this.list('tokens', vocabularyLimits.tokens);
    if (tokens === null || tokens.length === 0) throw this.complain('tokenizer.ggml.tokens is missing');
    const texts = Array.from(tokens, (token, id) => {
      if (token === '') return `[EMPTY_${id}]`; // llama.cpp's name for it
      return typeof token === 'string' ? respelled(token, this.model) : token;
    });
    this.vocabulary = Vocabulary.fromList(texts, this.complain);
    this.types = this.numbers('token_type') ?? new Uint8Array(texts.length).fill(tokenType.normal);
  }

  text(key: string): string | null {
    const value = this.#value(key);
    if (value === null || typeof value === 'string') return value;
    throw this.#wrong(key, 'text');
  }

  flag(key: string): boolean | null {
    const value = this.#value(key);
    if (value === null || typeof value === 'boolean') return value;
    throw this.#wrong(key, 'true or false');
  }

  /** A token id, or null if the key is absent. */
  id(key: string): number | null {
    const value = this.#value(key);
    if (value === null) return null;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= this.vocabulary.size) {
      throw this.#wrong(key, `an id from 0 to ${this.vocabulary.size - 1}`);
    }
    return value;
  }

  /** The same; if the key is absent a token that all such files have, or null where the vocabulary is too small. */
  idOr(key: string, usual: number | null): number | null {
    return this.id(key) ?? (usual !== null && usual < this.vocabulary.size ? usual : null);
  }

  list(key: string, maxLength: number): ArrayLike<unknown> | null {
    const value = this.#value(key);
    if (value === null) return null;
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) throw this.#wrong(key, 'a list');
    const list = value as ArrayLike<unknown>;
    if (list.length <= maxLength) return list;
    throw this.complain(`tokenizer.ggml.${key} has ${list.length} entries; at most ${maxLength}`);
  }

  /** A number for each token, or null if the key is absent. */
  numbers(key: string): ArrayLike<number> | null {
    const list = this.list(key, vocabularyLimits.tokens);
    if (list === null) return null;
    const { size } = this.vocabulary;
    if (list.length !== size)
      throw this.complain(`tokenizer.ggml.${key} has ${list.length} entries for ${size} tokens`);
    for (let i = 0; i < list.length; i++) {
      if (!Number.isFinite(list[i])) throw this.complain(`tokenizer.ggml.${key}[${i}] is no number`);
    }
    return list as ArrayLike<number>;
  }

  /** The model's name, lower case; some models are recognised by nothing else. */
  get modelName(): string {
    const name = this.#metadata.get('general.name');
    return typeof name === 'string' ? name.toLowerCase() : '';
  }

  #value(key: string): unknown {
    return this.#metadata.get(`tokenizer.ggml.${key}`) ?? null;
  }

  #wrong(key: string, expected: string): Error {
    const value = this.#value(key);
    const shown = typeof value === 'object' ? 'a list' : String(value).slice(0, 60);
    return this.complain(`tokenizer.ggml.${key} is ${shown}; expected ${expected}`);
  }
}
