import { type ModelConfig, readBiases, readLayerWindows } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { Family } from './family.js';
import { forward, readLlamaConfig } from './llama.js';
import { llamaNames } from './names.js';

/** Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on query, key and value, and windows in upper layers. */
export const qwen2: Family = {
  name: 'qwen2',
  architectures: ['Qwen2ForCausalLM'],
  modelType: 'qwen2',
  gguf: ['qwen2'],
  names: llamaNames,
  interleavedInGguf: false,
  readConfig,
  forward,
};

function readConfig(reader: ConfigReader): ModelConfig {
  const config = readLlamaConfig(reader, 'qwen2');
  return {
    ...config,
    slidingWindows: readLayerWindows(reader, config.numLayers),
    ...readBiases(reader, () => ({ attentionBias: true, attentionOutputBias: false, mlpBias: false })),
  };
}
