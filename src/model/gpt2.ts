import type { Buffer } from '../backend/op.js';
import { type ModelConfig, readActivation, readSizes, readTied } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { Family } from './family.js';
import type { LayerRecorder } from './layers.js';
import { gpt2Names } from './names.js';

/** GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"). */
export const gpt2: Family = {
  name: 'gpt2',
  architectures: ['GPT2LMHeadModel'],
  modelType: 'gpt2',
  gguf: ['gpt2'],
  names: gpt2Names,
  interleavedInGguf: false,
  readConfig,
  forward,
};

/** T tokens, R rows whose logits are wanted. */
function forward(m: LayerRecorder): Buffer {
  const { numLayers } = m.config;
  let x = m.embedding(); // [T, hiddenSize] the residual stream
  m.addPositions(x);
  for (let layer = 0; layer < numLayers; layer++) {
    const h = m.layerNorm(x, 'attentionNorm', layer); // [T, hiddenSize]
    const q = m.linear(h, 'query', layer); // [T, hiddenSize], like k, v and the heads
    const k = m.linear(h, 'key', layer);
    const v = m.linear(h, 'value', layer);
    let heads = m.attention(q, k, v, layer);
    if (layer === numLayers - 1) [x, heads] = [m.selectRows(x), m.selectRows(heads)]; // as in llama.ts
    m.add(x, m.linear(heads, 'attentionOutput', layer));
    m.add(x, m.geluMlp(m.layerNorm(x, 'mlpNorm', layer), layer));
  }
  return m.head(m.layerNorm(x, 'finalNorm')); // [R, vocabSize]
}

function readConfig(reader: ConfigReader): ModelConfig {
  reader.refuseUnless('safetensors', {
    scale_attn_weights: true,
    scale_attn_by_inverse_layer_idx: false,
    add_cross_attention: false,
  });
  const sizes = readSizes(reader);
  return {
    architecture: 'gpt2',
    ...sizes,
    intermediateSize: reader.optionalSize('intermediateSize') ?? 4 * sizes.hiddenSize,
    normEps: reader.epsilon('layer_norm_epsilon', 'attention.layer_norm_epsilon'),
    activation: readActivation(reader, 'activation_function', 'gelu_tanh', ['gelu', 'gelu_tanh']),
    rope: null,
    slidingWindows: Array.from({ length: sizes.numLayers }, () => 0),
    tieWordEmbeddings: readTied(reader, true),
    attentionBias: true,
    attentionOutputBias: true,
    mlpBias: true,
  };
}
