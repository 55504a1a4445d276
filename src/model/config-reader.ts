import { join } from 'node:path';
import type { EngineError } from '../base/errors.js';
import { Fields } from '../formats/fields.js';
import type { ModelSource } from '../formats/hub.js';
import { requireTensor } from '../formats/model-file.js';

interface Keys {
  /** In config.json; the first one that is there counts. */
  readonly json: readonly string[];
  /** In GGUF metadata, after the architecture. */
  readonly gguf: string;
  /** Largest believable value: far above every published model, and every product of two fits a double exactly. */
  readonly max: number;
}

/** Where the sizes of a model stand. GPT-2's names in config.json are its own. */
const sizes = {
  hiddenSize: { json: ['hidden_size', 'n_embd'], gguf: 'embedding_length', max: 1 << 18 },
  intermediateSize: { json: ['intermediate_size', 'n_inner'], gguf: 'feed_forward_length', max: 1 << 20 },
  numLayers: { json: ['num_hidden_layers', 'n_layer'], gguf: 'block_count', max: 1 << 12 },
  numHeads: { json: ['num_attention_heads', 'n_head'], gguf: 'attention.head_count', max: 1 << 12 },
  numKvHeads: { json: ['num_key_value_heads'], gguf: 'attention.head_count_kv', max: 1 << 12 },
  headDim: { json: ['head_dim'], gguf: 'attention.key_length', max: 1 << 12 },
  vocabSize: { json: ['vocab_size'], gguf: 'vocab_size', max: 1 << 24 },
  contextLength: { json: ['max_position_embeddings', 'n_positions', 'n_ctx'], gguf: 'context_length', max: 1 << 24 },
} as const satisfies Record<string, Keys>;

export type SizeName = keyof typeof sizes;

/** The range of every normalisation's epsilon. */
const EPSILON = { min: 1e-12, max: 0.1 };

/** Reads hyperparameters by their name, whichever format they are in. All methods throw CONFIG_INVALID. */
export class ConfigReader {
  readonly format: ModelSource['format'];
  readonly fields: Fields;
  /** Before the keys of a GGUF file that belong to the model: "llama.". */
  readonly #prefix: string;

  constructor(
    readonly source: ModelSource,
    architecture: string,
  ) {
    this.format = source.format;
    this.fields = fieldsOf(source);
    this.#prefix = source.format === 'gguf' ? `${architecture}.` : '';
  }

  /** The full key of a GGUF value. */
  key(suffix: string): string {
    return this.#prefix + suffix;
  }

  size(name: SizeName): number {
    const size = this.optionalSize(name);
    return size ?? this.fields.uint(this.#sizeKey(name)); // which is not there, and throws
  }

  optionalSize(name: SizeName): number | null {
    const key = this.#sizeKey(name);
    const range = { min: 1, max: sizes[name].max };
    if (!this.fields.isList(key)) return this.fields.optionalUint(key, range);
    const [first, ...rest] = this.fields.uints(key, { ...range, maxLength: sizes.numLayers.max });
    if (first !== undefined && rest.every((value) => value === first)) return first;
    throw this.fields.invalid(key, this.fields.raw(key), 'but layers of different sizes are not supported');
  }

  epsilon(json: string, gguf: string): number {
    return this.fields.float(this.format === 'gguf' ? this.key(gguf) : json, EPSILON);
  }

  /** The error for a size that contradicts another. */
  invalid(name: SizeName, value: unknown, problem: string): EngineError {
    return this.fields.invalid(this.#sizeKey(name), value, problem);
  }

  hasTensor(name: string): boolean {
    return this.source.tensors.has(name);
  }

  /** Rows of a tensor, for a size that follows from it. Throws TENSOR_MISSING too. */
  rowsOf(tensor: string, name: SizeName): number {
    const rows = requireTensor(this.source, tensor).shape[0] ?? 0;
    const { max } = sizes[name];
    if (rows >= 1 && rows <= max) return rows;
    throw this.fields.invalid(`rows of ${tensor}`, rows, `expected a whole number from 1 to ${max}`);
  }

  /**
   * Refuses values that change the computation in ways the family does not know: in files of this format, each is
   * absent or as given.
   */
  refuseUnless(format: ModelSource['format'], neutral: Readonly<Record<string, number | boolean | string>>): void {
    if (this.format !== format) return;
    for (const [suffix, value] of Object.entries(neutral)) {
      const key = this.key(suffix);
      const found = this.fields.raw(key);
      if (found === null || found === value) continue;
      throw this.fields.invalid(key, found, `which is not supported for this architecture; supported: ${value}`);
    }
  }

  #sizeKey(name: SizeName): string {
    const { json, gguf } = sizes[name];
    if (this.format === 'gguf') return this.key(gguf);
    return json.find((key) => this.fields.has(key)) ?? json[0];
  }
}

/** The metadata of a GGUF file, or config.json. */
export function fieldsOf(source: ModelSource): Fields {
  return source.format === 'gguf'
    ? new Fields(source.path, source.metadata)
    : new Fields(join(source.directory, 'config.json'), source.config);
}
