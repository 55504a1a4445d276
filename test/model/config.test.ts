import { describe, expect, test } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { loadModel, readModelConfig } from '../../src/model/load.js';
import { expectEngineError } from '../formats/engine-error.js';
import { ggufSource, safetensorsSource, tinyMetadata } from './sources.js';
import { seededNumbers, tinyGpt2, tinyLlama } from './tiny-checkpoint.js';

const gpt2Source = (changes = {}) => safetensorsSource(changes, tinyGpt2());
const as = (architecture: string, type: string) => ({ architectures: [architecture], model_type: type });
const qwen2 = as('Qwen2ForCausalLM', 'qwen2');
const mistral = as('MistralForCausalLM', 'mistral');

describe('the configuration', () => {
  test('is that of config.json, frozen', () => {
    const config = readModelConfig(safetensorsSource());
    expect(config).toEqual({
      architecture: 'llama',
      hiddenSize: 32,
      intermediateSize: 48,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 8,
      vocabSize: 96,
      contextLength: 128,
      normEps: 1e-5,
      activation: 'silu',
      rope: { ropeTheta: 10000, rotaryDim: 8, scaling: { type: 'default' }, attentionFactor: 1 },
      slidingWindows: [0, 0],
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
    });
    expect(Object.isFrozen(config)).toBe(true);
  });

  test('takes the defaults of transformers for absent keys', () => {
    const config = readModelConfig(safetensorsSource({ head_dim: null, num_key_value_heads: null, hidden_act: null }));
    expect(config).toMatchObject({ headDim: 8, numKvHeads: 4, activation: 'silu' });
  });

  test('of GPT-2 has its own names', () => {
    expect(readModelConfig(gpt2Source())).toMatchObject({
      architecture: 'gpt2',
      hiddenSize: 32,
      intermediateSize: 128,
      numKvHeads: 4,
      headDim: 8,
      contextLength: 64,
      activation: 'gelu_tanh',
      rope: null,
      tieWordEmbeddings: true,
    });
    expect(readModelConfig(gpt2Source({ n_inner: 100, activation_function: 'gelu' }))).toMatchObject({
      intermediateSize: 100,
      activation: 'gelu',
    });
  });

  test('of GGUF gets the size of the vocabulary from the embeddings', async () => {
    expect(readModelConfig(ggufSource({ 'llama.vocab_size': 90 })).vocabSize).toBe(96);
    await expectEngineError(() => readModelConfig(ggufSource({}, {})), 'TENSOR_MISSING', 'token_embd.weight');
  });

  test('of GGUF may have one size per layer, if they are equal', async () => {
    const key = 'llama.attention.head_count_kv';
    expect(readModelConfig(ggufSource({ [key]: Uint32Array.of(2, 2) })).numKvHeads).toBe(2);
    await expectEngineError(
      () => readModelConfig(ggufSource({ [key]: [2, 4] })),
      'CONFIG_INVALID',
      key,
      'different sizes',
    );
  });

  test('knows a model by model_type if it names no architectures', () => {
    expect(readModelConfig(safetensorsSource({ architectures: null })).architecture).toBe('llama');
  });
});

describe('sliding windows', () => {
  const windows = (changes: Readonly<Record<string, unknown>>) =>
    readModelConfig(safetensorsSource(changes)).slidingWindows;

  test('Mistral has one in every layer: 4096 if the key is not there, none if it is null', () => {
    expect(windows(mistral)).toEqual([4096, 4096]);
    expect(windows({ ...mistral, sliding_window: null })).toEqual([0, 0]);
    expect(windows({ ...mistral, sliding_window: 16 })).toEqual([16, 16]);
  });

  test('Qwen has them in upper layers, or by type, once they are switched on', () => {
    const on = { ...qwen2, use_sliding_window: true, sliding_window: 16 };
    expect(windows({ ...on, use_sliding_window: false })).toEqual([0, 0]);
    expect(windows(on)).toEqual([0, 0]);
    expect(windows({ ...on, max_window_layers: 1 })).toEqual([0, 16]);
    expect(windows({ ...on, layer_types: ['sliding_attention', 'full_attention'] })).toEqual([16, 0]);
  });

  test('Llama has none, whatever its file says', () => {
    expect(windows({ sliding_window: 16 })).toEqual([0, 0]);
  });

  test('of GGUF are in every layer', () => {
    const source = ggufSource({ 'llama.attention.sliding_window': 16 });
    expect(readModelConfig(source).slidingWindows).toEqual([16, 16]);
  });
});

describe('a configuration is refused', () => {
  test('for an unknown architecture, with the known ones', async () => {
    const supported = 'supported: llama, mistral, qwen2, qwen3, gpt2';
    const refused = (source: Parameters<typeof readModelConfig>[0], name: string) =>
      expectEngineError(() => readModelConfig(source), 'ARCHITECTURE_UNSUPPORTED', `architecture ${name} `, supported);
    await refused(safetensorsSource(as('MambaForCausalLM', 'mamba')), 'MambaForCausalLM');
    // The same layers, another head.
    await refused(safetensorsSource(as('LlamaForSequenceClassification', 'llama')), 'LlamaForSequenceClassification');
    await refused(ggufSource({ 'general.architecture': 'mamba' }), 'mamba');
  });

  test.each([
    ['hidden_size', 0, 'from 1 to'],
    ['hidden_size', 2 ** 30, 'from 1 to'],
    ['hidden_size', 32.5, 'expected a whole number'],
    ['hidden_size', '32', 'expected a whole number'],
    ['hidden_size', null, 'is missing'],
    ['num_hidden_layers', 1e9, 'from 1 to'],
    ['num_attention_heads', -4, 'from 1 to'],
    ['num_key_value_heads', 3, 'does not divide the 4 attention heads'],
    ['vocab_size', 2 ** 31, 'from 1 to'],
    ['max_position_embeddings', 1e12, 'from 1 to'],
    ['rms_norm_eps', 0, 'expected a finite number'],
    ['rms_norm_eps', null, 'is missing'],
    ['hidden_act', 'relu', 'which is not supported; supported: silu, swish'],
    ['hidden_act', 'gelu', 'which is not supported'],
    ['tie_word_embeddings', 1, 'expected true or false'],
    ['attention_bias', 'yes', 'expected true or false'],
    ['quantization_config', { quant_method: 'gptq' }, 'quantised safetensors are not supported'],
    ['architectures', 'LlamaForCausalLM', 'expected a list'],
  ])('for %s = %j', async (key, value, problem) => {
    const source = safetensorsSource({ [key]: value });
    await expectEngineError(() => readModelConfig(source), 'CONFIG_INVALID', '/models/tiny/config.json', key, problem);
  });

  test('for heads that do not divide the hidden size', async () => {
    const source = safetensorsSource({ head_dim: null, num_attention_heads: 5, num_key_value_heads: 5 });
    await expectEngineError(() => readModelConfig(source), 'CONFIG_INVALID', 'num_attention_heads is 5', 'of 32');
  });

  test.each([
    ['scale_attn_weights', false],
    ['scale_attn_by_inverse_layer_idx', true],
    ['add_cross_attention', true],
    ['activation_function', 'relu'],
  ])('for %s = %j of GPT-2', async (key, value) => {
    await expectEngineError(() => readModelConfig(gpt2Source({ [key]: value })), 'CONFIG_INVALID', `${key} is`);
  });

  test.each([
    ['llama.expert_count', 8, 'supported: 0'],
    ['llama.attention.scale', 0.1, 'supported: 0'],
    ['llama.attention.value_length', 4, 'supported: 8'],
    ['llama.embedding_length', 2n ** 40n, 'from 1 to'],
    ['llama.block_count', undefined, 'is missing'],
    ['general.architecture', undefined, 'is missing'],
  ])('for %s = %s in GGUF', async (key, value, problem) => {
    await expectEngineError(() => readModelConfig(ggufSource({ [key]: value })), 'CONFIG_INVALID', key, problem);
  });

  test('for layer types nobody knows', async () => {
    const types = { ...qwen2, layer_types: ['full_attention', 'linear_attention'] };
    await expectEngineError(
      () => readModelConfig(safetensorsSource(types)),
      'CONFIG_INVALID',
      'layer_types[1]',
      'linear',
    );
    const tooFew = { ...qwen2, layer_types: ['full_attention'] };
    await expectEngineError(() => readModelConfig(safetensorsSource(tooFew)), 'CONFIG_INVALID', 'expected 2 elements');
  });
});

test('whatever values a file has, loading gives a model or an EngineError', () => {
  const next = seededNumbers(7);
  const oddities = [
    null,
    true,
    -1,
    0,
    0.5,
    1,
    3,
    1e9,
    2 ** 53,
    Number.NaN,
    '',
    'default',
    [],
    [1, 1],
    {},
    { factor: 2 },
  ];
  const pick = <T>(values: readonly T[]): T => values[Math.floor(((next() + 1) / 2) * values.length)]!;
  const models = [
    tinyLlama(),
    tinyGpt2(),
    tinyLlama({ ...as('Qwen3ForCausalLM', 'qwen3'), rope_scaling: { type: 'yarn', factor: 2 } }),
  ];
  let numErrors = 0;
  for (let round = 0; round < 3000; round++) {
    const model = pick(models);
    const source =
      round % 2 === 0
        ? safetensorsSource({ [pick(Object.keys(model.config))]: pick(oddities) }, model)
        : ggufSource({ [pick([...Object.keys(tinyMetadata), 'llama.rope.scaling.factor'])]: pick(oddities) });
    try {
      loadModel(source, { activations: 'f32' });
    } catch (error) {
      if (!(error instanceof EngineError) || error.code === 'INTERNAL') throw error;
      numErrors++;
    }
  }
  expect(numErrors).toBeGreaterThan(1000);
});
