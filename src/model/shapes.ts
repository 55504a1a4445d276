import type { ModelConfig } from './config.js';
import type { Role } from './names.js';

/** [rows, columns] = [outputs, inputs] of the weight in each role; vectors have one row. */
export const shapes: Readonly<Record<Role, (config: ModelConfig) => readonly [rows: number, columns: number]>> = {
  embedding: (c) => [c.vocabSize, c.hiddenSize],
  positions: (c) => [c.contextLength, c.hiddenSize],
  finalNorm: (c) => [1, c.hiddenSize],
  head: (c) => [c.vocabSize, c.hiddenSize],
  attentionNorm: (c) => [1, c.hiddenSize],
  query: (c) => [c.numHeads * c.headDim, c.hiddenSize],
  key: (c) => [c.numKvHeads * c.headDim, c.hiddenSize],
  value: (c) => [c.numKvHeads * c.headDim, c.hiddenSize],
  queryNorm: (c) => [1, c.headDim],
  keyNorm: (c) => [1, c.headDim],
  attentionOutput: (c) => [c.hiddenSize, c.numHeads * c.headDim],
  mlpNorm: (c) => [1, c.hiddenSize],
  gate: (c) => [c.intermediateSize, c.hiddenSize],
  up: (c) => [c.intermediateSize, c.hiddenSize],
  down: (c) => [c.hiddenSize, c.intermediateSize],
};

/** Whether the linear layer in this role adds a bias. */
export function hasBias(config: ModelConfig, role: Role): boolean {
  switch (role) {
    case 'query':
    case 'key':
    case 'value':
      return config.attentionBias;
    case 'attentionOutput':
      return config.attentionOutputBias;
    case 'gate':
    case 'up':
    case 'down':
      return config.mlpBias;
    default:
      return false;
  }
}
