import type { Buffer } from '../backend/op.js';
import { type ModelConfig, readActivation, readBiases, readSizes, readTied, readWindow } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { Family } from './family.js';
import type { LayerRecorder } from './layers.js';
import { llamaNames } from './names.js';
import { readRope } from './rope-config.js';

/** Llama 1 to 3 (arXiv 2302.13971, 2307.09288, 2407.21783), and the many models of the same architecture. */
export const llama: Family = {
  name: 'llama',
  architectures: ['LlamaForCausalLM', 'LLaMAForCausalLM'],
  modelType: 'llama',
  gguf: ['llama'],
  names: llamaNames,
  interleavedInGguf: true,
  readConfig: (reader) => readLlamaConfig(reader, 'llama'),
  forward,
};

/** The forward pass, from bottom to top of the figure. T tokens, R rows whose logits are wanted. */
export function forward(m: LayerRecorder): Buffer {
  const { numLayers } = m.config;
  let x = m.embedding(); // [T, hiddenSize] the residual stream
  for (let layer = 0; layer < numLayers; layer++) {
    const h = m.rmsNorm(x, 'attentionNorm', layer); // [T, hiddenSize]
    const q = m.linear(h, 'query', layer); // [T, numHeads · headDim]
    const k = m.linear(h, 'key', layer); // [T, numKvHeads · headDim]
    const v = m.linear(h, 'value', layer); // [T, numKvHeads · headDim]
    m.rotate(q, k);
    let heads = m.attention(q, k, v, layer); // [T, numHeads · headDim]
    // After the last attention nothing looks at other tokens: only R rows go on.
    if (layer === numLayers - 1) [x, heads] = [m.selectRows(x), m.selectRows(heads)];
    m.add(x, m.linear(heads, 'attentionOutput', layer));
    m.add(x, m.swiGlu(m.rmsNorm(x, 'mlpNorm', layer), layer));
  }
  return m.head(m.rmsNorm(x, 'finalNorm')); // [R, vocabSize]
}

/** Llama's configuration; families made after it change a few lines of theirs. */
export function readLlamaConfig(reader: ConfigReader, architecture: string): ModelConfig {
  const { fields } = reader;
  reader.refuseUnless('gguf', { expert_count: 0, 'attention.scale': 0, 'attention.causal': true, logit_scale: 0 });
  const sizes = readSizes(reader);
  const window = reader.format === 'gguf' ? readWindow(reader) : 0;
  return {
    architecture,
    ...sizes,
    intermediateSize: reader.size('intermediateSize'),
    normEps: reader.epsilon('rms_norm_eps', 'attention.layer_norm_rms_epsilon'),
    activation: readActivation(reader, 'hidden_act', 'silu', ['silu']),
    rope: readRope(reader, sizes.headDim, sizes.contextLength),
    slidingWindows: Array.from({ length: sizes.numLayers }, () => window),
    tieWordEmbeddings: readTied(reader, false),
    ...readBiases(reader, () => {
      const attentionBias = fields.optionalBoolean('attention_bias') ?? false;
      const mlpBias = fields.optionalBoolean('mlp_bias') ?? false;
      return { attentionBias, attentionOutputBias: attentionBias, mlpBias };
    }),
  };
}
