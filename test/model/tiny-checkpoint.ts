import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { float32Bytes, type MetadataInput, writeGguf } from '../formats/gguf-writer.js';
import { writeSafetensors } from '../formats/safetensors-writer.js';
import { seededRandom } from '../tensor/random.js';

/** A float32 tensor; matrices are [rows, columns]. */
export interface TinyTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface TinyModel {
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: readonly TinyTensor[];
}

/** Numbers in [−1, 1), the same ones for the same seed. */
export function seededNumbers(seed: number): () => number {
  const random = seededRandom(seed);
  return () => 2 * random() - 1;
}

/** Makes tensors one after the other: activations keep a size of about 1 through all layers. */
export class TinyTensors {
  readonly tensors: TinyTensor[] = [];
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = seededNumbers(seed);
  }

  matrix(name: string, shape: readonly [number, number], columns = shape[1]): void {
    const scale = Math.sqrt(3 / columns);
    this.#add(name, shape, () => this.#next() * scale);
  }

  norm(name: string, columns: number): void {
    this.#add(name, [columns], () => 1 + 0.2 * this.#next());
  }

  bias(name: string, columns: number): void {
    this.#add(name, [columns], () => 0.2 * this.#next());
  }

  #add(name: string, shape: readonly number[], value: () => number): void {
    const length = shape.reduce((product, size) => product * size, 1);
    this.tensors.push({ name, shape, values: Float32Array.from({ length }, value) });
  }
}

/** A Llama of 2 layers with grouped queries; `changes` go into its config.json, and its tensors follow. */
export function tinyLlama(changes: Readonly<Record<string, unknown>> = {}, seed = 9): TinyModel {
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 96,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: 'silu',
    attention_bias: false,
    tie_word_embeddings: false,
    torch_dtype: 'float32',
    ...changes,
  };
  const hidden = config.hidden_size;
  const queryWidth = config.num_attention_heads * config.head_dim;
  const kvWidth = config.num_key_value_heads * config.head_dim;
  const made = new TinyTensors(seed);
  made.matrix('model.embed_tokens.weight', [config.vocab_size, hidden]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const name = (part: string) => `model.layers.${layer}.${part}`;
    const linear = (part: string, rows: number, columns: number) => {
      made.matrix(name(`self_attn.${part}.weight`), [rows, columns]);
      if (config.attention_bias) made.bias(name(`self_attn.${part}.bias`), rows);
    };
    made.norm(name('input_layernorm.weight'), hidden);
    linear('q_proj', queryWidth, hidden);
    linear('k_proj', kvWidth, hidden);
    linear('v_proj', kvWidth, hidden);
    linear('o_proj', hidden, queryWidth);
    made.norm(name('post_attention_layernorm.weight'), hidden);
    made.matrix(name('mlp.gate_proj.weight'), [config.intermediate_size, hidden]);
    made.matrix(name('mlp.up_proj.weight'), [config.intermediate_size, hidden]);
    made.matrix(name('mlp.down_proj.weight'), [hidden, config.intermediate_size]);
  }
  made.norm('model.norm.weight', hidden);
  if (!config.tie_word_embeddings) made.matrix('lm_head.weight', [config.vocab_size, hidden]);
  return { config, tensors: made.tensors };
}

/** A GPT-2 of 2 layers: stacked query, key and value, matrices stored as [in, out], a tied head. */
export function tinyGpt2(seed = 9): TinyModel {
  const hidden = 32;
  const made = new TinyTensors(seed);
  const norm = (name: string) => {
    made.norm(`${name}.weight`, hidden);
    made.bias(`${name}.bias`, hidden);
  };
  made.matrix('transformer.wte.weight', [96, hidden]);
  made.matrix('transformer.wpe.weight', [64, hidden]);
  for (let layer = 0; layer < 2; layer++) {
    const conv1d = (part: string, inputs: number, outputs: number) => {
      made.matrix(`transformer.h.${layer}.${part}.weight`, [inputs, outputs], inputs);
      made.bias(`transformer.h.${layer}.${part}.bias`, outputs);
    };
    norm(`transformer.h.${layer}.ln_1`);
    conv1d('attn.c_attn', hidden, 3 * hidden);
    conv1d('attn.c_proj', hidden, hidden);
    norm(`transformer.h.${layer}.ln_2`);
    conv1d('mlp.c_fc', hidden, 4 * hidden);
    conv1d('mlp.c_proj', 4 * hidden, hidden);
  }
  norm('transformer.ln_f');
  const config = {
    architectures: ['GPT2LMHeadModel'],
    model_type: 'gpt2',
    n_embd: hidden,
    n_layer: 2,
    n_head: 4,
    n_positions: 64,
    vocab_size: 96,
    layer_norm_epsilon: 1e-5,
    activation_function: 'gelu_new',
  };
  return { config, tensors: made.tensors };
}

/** Writes config.json and model.safetensors into a folder, and returns the folder. */
export function writeCheckpoint(folder: string, model: TinyModel): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(model.config));
  const tensors = model.tensors.map(({ name, shape, values }) => {
    return { name, shape, dtype: 'F32', bytes: float32Bytes(values) };
  });
  writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(tensors));
  return folder;
}

/** Writes a GGUF file of float32 tensors and returns its path. */
export function writeTinyGguf(
  path: string,
  metadata: Readonly<Record<string, MetadataInput>>,
  tensors: readonly TinyTensor[],
): string {
  const inputs = tensors.map(({ name, shape, values }) => {
    return { name, shape, dtype: 'f32' as const, bytes: float32Bytes(values) };
  });
  writeFileSync(path, writeGguf({ metadata, tensors: inputs }));
  return path;
}
