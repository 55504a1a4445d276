import { DEFAULT_WINDOW, type ModelConfig, readBiases, readWindow } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { Family } from './family.js';
import { forward, readLlamaConfig } from './llama.js';
import { llamaNames } from './names.js';

/** Mistral (arXiv 2310.06825): Llama whose queries see a sliding window. In GGUF it calls itself llama. */
export const mistral: Family = {
  name: 'mistral',
  architectures: ['MistralForCausalLM'],
  modelType: 'mistral',
  gguf: [],
  names: llamaNames,
  interleavedInGguf: true,
  readConfig,
  forward,
};

function readConfig(reader: ConfigReader): ModelConfig {
  const config = readLlamaConfig(reader, 'mistral');
  // null is no window; a key that is not there at all means the first model's.
  const isStated = reader.fields.keys().includes('sliding_window');
  const window = isStated ? readWindow(reader) : DEFAULT_WINDOW;
  return {
    ...config,
    slidingWindows: config.slidingWindows.map(() => window),
    ...readBiases(reader, () => ({ attentionBias: false, attentionOutputBias: false, mlpBias: false })),
  };
}
