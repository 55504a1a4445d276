import type { Batch } from '../../src/backend/backend.js';
import { seededNormal } from '../tensor/random.js';
import { batchOf, CaseBuilder, type OpCase } from './case-builder.js';

const WIDTH = 1024;

/** Tokens of a step. */
const COUNT = 512;

/** A chain of linears that takes a native backend a while: 1.07 GFLOP per layer and step of `slowBatch`. */
export function slowModel(numLayers: number): OpCase {
  const builder = new CaseBuilder(31);
  const normal = seededNormal(31);
  const values = Float32Array.from({ length: WIDTH * WIDTH }, () => normal() / Math.sqrt(WIDTH));
  const weight = builder.values(WIDTH, WIDTH, values);
  let x = builder.input(64, WIDTH);
  for (let i = 0; i < numLayers; i++) x = builder.plan.linear(x, weight, null, 'f32');
  const limits = { maxTokens: COUNT, contextSize: COUNT };
  return builder.finish(`slow-${numLayers}`, x, { steps: [slowBatch], tolerance: 0, limits });
}

/** One prefill; the logits of its last token are wanted. */
export const slowBatch: Batch = batchOf([
  {
    start: 0,
    count: COUNT,
    blocks: Array.from({ length: 32 }, (_, i) => i),
    tokenIds: Array.from({ length: COUNT }, (_, i) => i % 64),
    wanted: [COUNT - 1],
  },
]);
