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
  const layer = 4 * (2 * 16 * 32 + 32 * 32 + 3 * 48 * 32); // bytes
  const repacked = 2 * (64 + 512); // attn_q in panels of 16 rows
  expect(plan.mappedWeights).toBe(96 * 32 * 4 + 2 * layer);
  expect(plan.copiedWeights).toBe(5 * 128 + 2 * repacked);
  expect(plan.kvBytesPerToken).toBe(2 * 2 * 16 * 2);
  expect(plan.kvCache).toBe(plan.kvBytesPerToken * 80);
  const { arenaWidths } = model.plan;
  const codes = 2 * (32 * 32 + 2 * (32 * 4) + 32 * 2 * 4); // codes, scales and scaled sums, sums: in two areas
  const exchanged = 5 * 64; // of 4 heads, an output padded to 16, a maximum and a sum each
  expect(plan.activations).toBe(4 * (32 * arenaWidths.tokens + 4 * arenaWidths.logits) + codes + exchanged);
  expect(plan.ropeTables).toBe(2 * 64 * 4 * 4);
  const { mappedWeights, copiedWeights, kvCache, activations, ropeTables } = plan;
  expect(plan.total).toBe(mappedWeights + copiedWeights + kvCache + activations + ropeTables);
});

test('8-bit keys and values are counted with a scale per position and KV head', () => {
  const plan = memoryPlan(loadModel(ggufSource(), { activations: 'q8' }), { ...limits, kvDtype: 'int8' });
  expect(plan.kvBytesPerToken).toBe(2 * 2 * 2 * (8 + 4));
  expect(plan.kvCache).toBe(plan.kvBytesPerToken * 80);
});

test('transposed matrices count as copies', () => {
  const plan = memoryPlan(loadModel(safetensorsSource({}, tinyGpt2()), { activations: 'f32' }), limits);
  expect(plan.mappedWeights).toBe(4 * 32 * (96 + 64));
  expect(plan.copiedWeights).toBe(2 * 4 * (12 * 32 * 32 + 9 * 32 + 4 * 32) + 2 * 4 * 32);
});

test('matrices that are quantised at load are copies, whatever they are stored as', () => {
  const quantise = { layers: 'int4', head: 'int8' } as const;
  const plan = memoryPlan(loadModel(ggufSource(), { activations: 'q8', quantise }), limits);
  const panel = (columns: number) => 64 + 64 * Math.ceil(columns / 64) + 256 * (columns / 32); // bytes of int4
  const int8 = 64 + 64 + 512;
  // ffn_down has rows of 48 values, which no group divides.
  expect(plan.mappedWeights).toBe(2 * 4 * 32 * 48);
  expect(plan.copiedWeights).toBe(6 * int8 + 2 * (2 + 1 + 1 + 2 + 3 + 3) * panel(32) + 5 * 128);
});

test('tied weights count once', () => {
  const { plan } = loadModel(ggufSource(), { activations: 'f32' });
  const layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32;
  expect(countParameters(plan)).toBe(96 * 32 + 2 * layer + 32);
});
