import type { ConfigReader } from './config-reader.js';
import type { RopeConfig } from './rope.js';

/** The hyperparameters of a decoder-only Transformer, named as in config.json; every number is in a sane range. */
export interface ModelConfig {
  /** Family, as in families.ts. */
  readonly architecture: string;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Divides numHeads; smaller in grouped-query attention (arXiv 2305.13245). */
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  /** Longest sequence the model was made for, in tokens: max_position_embeddings. */
  readonly contextLength: number;
  /** rms_norm_eps, or layer_norm_epsilon where the family has LayerNorm. */
  readonly normEps: number;
  readonly activation: Activation;
  /** null where positions are learned. */
  readonly rope: RopeConfig | null;
  /** [numLayers] Tokens that a query sees, itself included; 0 sees all before it. */
  readonly slidingWindows: readonly number[];
  /** The output head is the embedding table. */
  readonly tieWordEmbeddings: boolean;
  /** Of query, key and value. */
  readonly attentionBias: boolean;
  readonly attentionOutputBias: boolean;
  readonly mlpBias: boolean;
}

export type Activation = 'silu' | 'gelu' | 'gelu_tanh';

/** Of transformers, where config.json leaves the keys out. */
export const DEFAULT_WINDOW = 4096;
const DEFAULT_FIRST_WINDOW_LAYER = 28;

/** What config.json calls the activations that plans know. */
const activations: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
};

/** The activation under `key` of config.json; GGUF metadata has none, there it follows from the family. */
export function readActivation(
  reader: ConfigReader,
  key: string,
  fallback: Activation,
  choices: readonly Activation[],
): Activation {
  if (reader.format === 'gguf') return fallback;
  const name = reader.fields.optionalString(key);
  if (name === null) return fallback;
  const activation = activations[name];
  if (activation !== undefined && choices.includes(activation)) return activation;
  const known = Object.keys(activations).filter((alias) => choices.includes(activations[alias]!));
  throw reader.fields.invalid(key, name, `which is not supported; supported: ${known.join(', ')}`);
}

/** What every family reads in the same way. */
export function readSizes(reader: ConfigReader) {
  const hiddenSize = reader.size('hiddenSize');
  const numLayers = reader.size('numLayers');
  const numHeads = reader.size('numHeads');
  const numKvHeads = reader.optionalSize('numKvHeads') ?? numHeads;
  if (numHeads % numKvHeads !== 0) {
    throw reader.invalid('numKvHeads', numKvHeads, `which does not divide the ${numHeads} attention heads`);
  }
  return {
    hiddenSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim: readHeadDim(reader, hiddenSize, numHeads),
    // GGUF files may leave the key out, and llama.cpp does not look at it.
    vocabSize: reader.format === 'gguf' ? reader.rowsOf('token_embd.weight', 'vocabSize') : reader.size('vocabSize'),
    contextLength: reader.size('contextLength'),
  };
}

function readHeadDim(reader: ConfigReader, hiddenSize: number, numHeads: number): number {
  const stated = reader.optionalSize('headDim');
  if (stated === null && hiddenSize % numHeads !== 0) {
    throw reader.invalid('numHeads', numHeads, `which does not divide the hidden size of ${hiddenSize}`);
  }
  const headDim = stated ?? hiddenSize / numHeads;
  reader.refuseUnless('gguf', { 'attention.value_length': headDim }); // values as wide as keys
  return headDim;
}

/** In GGUF a bias is there or not; config.json says so in ways that differ between families. */
export function readBiases(
  reader: ConfigReader,
  json: () => Pick<ModelConfig, 'attentionBias' | 'attentionOutputBias' | 'mlpBias'>,
): Pick<ModelConfig, 'attentionBias' | 'attentionOutputBias' | 'mlpBias'> {
  if (reader.format !== 'gguf') return json();
  return {
    attentionBias: reader.hasTensor('blk.0.attn_q.bias') || reader.hasTensor('blk.0.attn_qkv.bias'),
    attentionOutputBias: reader.hasTensor('blk.0.attn_output.bias'),
    mlpBias: reader.hasTensor('blk.0.ffn_down.bias'),
  };
}

/** GGUF leaves a tied head out; config.json says so. */
export function readTied(reader: ConfigReader, fallback: boolean): boolean {
  if (reader.format === 'gguf') return !reader.hasTensor('output.weight');
  return reader.fields.optionalBoolean('tie_word_embeddings') ?? fallback;
}

const WINDOW = { min: 1, max: 1 << 28 };

/** The same window in every layer, as GGUF has it and Mistral means it; 0 if there is none. */
export function readWindow(reader: ConfigReader): number {
  if (reader.format !== 'gguf') return reader.fields.optionalUint('sliding_window', WINDOW) ?? 0;
  return reader.fields.optionalUint(reader.key('attention.sliding_window'), { ...WINDOW, min: 0 }) ?? 0;
}

/** The window of each layer of a family that switches it on by `use_sliding_window`, from a layer on or by type. */
export function readLayerWindows(reader: ConfigReader, numLayers: number): number[] {
  const { fields } = reader;
  if (reader.format === 'gguf') return Array.from({ length: numLayers }, () => readWindow(reader));
  const isUsed = fields.optionalBoolean('use_sliding_window') ?? false;
  const window = isUsed ? (fields.has('sliding_window') ? readWindow(reader) : DEFAULT_WINDOW) : 0;
  const firstLayer = fields.optionalUint('max_window_layers') ?? DEFAULT_FIRST_WINDOW_LAYER;
  const types = fields.optionalStrings('layer_types', { length: numLayers });
  return Array.from({ length: numLayers }, (_, layer) => {
    const type = types?.[layer] ?? (layer >= firstLayer ? 'sliding_attention' : 'full_attention');
    if (type === 'full_attention') return 0;
    if (type === 'sliding_attention') return window;
    throw fields.invalid(
      `layer_types[${layer}]`,
      type,
      'which is not supported; supported: full_attention, sliding_attention',
    );
  });
}
