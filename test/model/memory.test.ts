import { expect, test } from 'vitest';
import { loadModel } from '../../src/model/load.js';
import { countParameters, memoryPlan } from '../../src/model/memory.js';
import { ggufSource, safetensorsSource, tinyGgufShapes } from './sources.js';
import { tinyGpt2 } from './tiny-checkpoint.js';

const limits = {
  maxTokens: 32,
  maxRows: 4,
  maxSequences: 2,
  contextSize: 64,
  blockSize: 16,
  numBlocks: 5,
  kvDtype: 'f16',
} as const;

test('memory is counted exactly', () => {
  const model = loadModel(
    ggufSource({}, tinyGgufShapes, (name) => (name.includes('attn_q.') ? 'q8_0' : 'f32')),
    {
      activations: 'q8',
    },
  );
  const plan = memoryPlan(model, limits);
  const layer = 32 * 34 + 4 * (2 * 16 * 32 + 32 * 32 + 3 * 48 * 32); // bytes
  expect(plan.mappedWeights).toBe(96 * 32 * 4 + 2 * layer);
  expect(plan.copiedWeights).toBe(5 * 128);
  expect(plan.kvBytesPerToken).toBe(2 * 2 * 16 * 2);
  expect(plan.kvCache).toBe(plan.kvBytesPerToken * 80);
  const { arenaWidths } = model.plan;
  const codes = 32 * 32 + 32 * 4 + 32 * 2 * 4;
  expect(plan.activations).toBe(4 * (32 * arenaWidths.tokens + 4 * arenaWidths.logits) + codes);
  expect(plan.ropeTables).toBe(2 * 64 * 4 * 4);
  const { mappedWeights, copiedWeights, kvCache, activations, ropeTables } = plan;
  expect(plan.total).toBe(mappedWeights + copiedWeights + kvCache + activations + ropeTables);
});

test('transposed matrices count as copies', () => {
  const plan = memoryPlan(loadModel(safetensorsSource({}, tinyGpt2()), { activations: 'f32' }), limits);
  expect(plan.mappedWeights).toBe(4 * 32 * (96 + 64));
  expect(plan.copiedWeights).toBe(2 * 4 * (12 * 32 * 32 + 9 * 32 + 4 * 32) + 2 * 4 * 32);
});

test('tied weights count once', () => {
  const { plan } = loadModel(ggufSource(), { activations: 'f32' });
  const layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32;
  expect(countParameters(plan)).toBe(96 * 32 + 2 * layer + 32);
});
