import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { decodeBytes, decodeOps, modelCost, prefillOps } from '../../src/benchmark/model-cost.js';
import { writeSyntheticModel } from '../../src/synthetic/model.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-cost-'));
const path = join(folder, 'model.gguf');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// Of the shape 15m, by hand: four square matrices of attention and three of the feed-forward network in each of 6 layers.
const layerValues = 6 * (4 * 288 * 288 + 3 * 288 * 768);
const headValues = 32_000 * 288;
const norms = 13 * 288;

test('bytes and operations of a token follow from the sizes', async () => {
  await writeSyntheticModel(path, { shape: '15m', type: 'q8_0' });
  const cost = await modelCost(path, {});
  expect(cost.model).toMatchObject({ architecture: 'llama', parameters: layerValues + 2 * headValues + norms });
  expect(cost.dtype).toBe('q8_0');
  expect(cost.isFloat).toBe(false);
  expect(cost.stepBytes).toBe(((layerValues + headValues) * 34) / 32);
  expect(cost.kvBytes).toBe(6 * 2 * 288 * 2);
  expect((await modelCost(path, { kvDtype: 'f32' })).kvBytes).toBe(2 * cost.kvBytes);
  expect((await modelCost(path, { kvDtype: 'int8' })).kvBytes).toBe(6 * 2 * (288 + 6 * 4)); // a scale per head

  const attention = 6 * 4 * 288; // a query times a key, and a probability times a value, for each position
  // 9 tokens after 2: the mean of them has 7 positions to read, its own included.
  const alone = { batch: 1, promptTokens: 2, generatedTokens: 9 };
  expect(decodeBytes(cost, alone)).toBe(cost.stepBytes + 7 * cost.kvBytes);
  expect(decodeBytes(cost, { ...alone, batch: 4 })).toBe(cost.stepBytes / 4 + 7 * cost.kvBytes);
  expect(decodeOps(cost, alone)).toBe(2 * (layerValues + headValues) + 7 * attention);
  // Position i attends to i + 1 of them, and only the last one has logits. The last layer's matrices after attention are
  // needed for that one alone.
  const afterAttention = 2 * (288 * 288 + 3 * 288 * 768);
  const perToken = 2 * layerValues - afterAttention + (afterAttention + 2 * headValues) / 9 + 5 * attention;
  expect(prefillOps(cost, { batch: 1, promptTokens: 9, generatedTokens: 0 })).toBeCloseTo(perToken, 3);
});

test('what is quantised while loading counts as what it becomes, and types are named by their size', async () => {
  await writeSyntheticModel(path, { shape: '15m', type: 'q4_k_m' });
  expect((await modelCost(path, {})).dtype).toBe('q8_0+q5_0+q4_k+q6_k');
  await writeSyntheticModel(path, { shape: '15m', type: 'f16' });
  const [stored, int4] = await Promise.all([modelCost(path, {}), modelCost(path, { quantize: 'int4' })]);
  expect(stored).toMatchObject({ dtype: 'f16', isFloat: true, stepBytes: 2 * (layerValues + headValues) });
  expect(int4).toMatchObject({ dtype: 'int8+int4', isFloat: false });
  expect(int4.stepBytes).toBeLessThan(stored.stepBytes / 2);
});
