import type { Buffer } from '../backend/op.js';
import { type ModelConfig, readLayerWindows } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { Family } from './family.js';
import type { LayerRecorder } from './layers.js';
import { readLlamaConfig } from './llama.js';
import { llamaNames } from './names.js';

/** Qwen3 (arXiv 2505.09388): Llama with normalised queries and keys. */
export const qwen3: Family = {
  name: 'qwen3',
  architectures: ['Qwen3ForCausalLM'],
  modelType: 'qwen3',
  gguf: ['qwen3'],
  names: llamaNames,
  interleavedInGguf: false,
  readConfig,
  forward,
};

function forward(m: LayerRecorder): Buffer {
  const { numLayers } = m.config;
  let x = m.embedding(); // [T, hiddenSize] the residual stream
  for (let layer = 0; layer < numLayers; layer++) {
    const h = m.rmsNorm(x, 'attentionNorm', layer); // [T, hiddenSize]
    const queries = m.linear(h, 'query', layer); // [T, numHeads · headDim]
    const keys = m.linear(h, 'key', layer); // [T, numKvHeads · headDim]
    const v = m.linear(h, 'value', layer); // [T, numKvHeads · headDim]
    const q = m.rmsNorm(queries, 'queryNorm', layer); // each head by itself
    const k = m.rmsNorm(keys, 'keyNorm', layer);
    m.rotate(q, k);
    let heads = m.attention(q, k, v, layer); // [T, numHeads · headDim]
    if (layer === numLayers - 1) [x, heads] = [m.selectRows(x), m.selectRows(heads)]; // as in llama.ts
    m.add(x, m.linear(heads, 'attentionOutput', layer));
    m.add(x, m.swiGlu(m.rmsNorm(x, 'mlpNorm', layer), layer));
  }
  return m.head(m.rmsNorm(x, 'finalNorm')); // [R, vocabSize]
}

function readConfig(reader: ConfigReader): ModelConfig {
  const config = readLlamaConfig(reader, 'qwen3');
  return { ...config, slidingWindows: readLayerWindows(reader, config.numLayers) };
}
