import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/backend/backend.js';
import { type NativeCpuOptions, nativeCpuBackend } from '../../src/backend/native.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { type OpCase, writeWeights } from './case-builder.js';
import { expectClose } from './compare.js';
import { isas, notBuilt } from './native-availability.js';
import { temporaryFolder } from './temporary-folder.js';
import { inBatchOf, schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();

const variants = [
  tinyLlama('f32', 'f32', 'f32', 'f32'),
  tinyLlama('q8_0, float32 activations, float16 cache', 'q8_0', 'f32', 'f16'),
  tinyLlama('q4_0, 8-bit activations, float16 cache', 'q4_0', 'q8', 'f16'),
  tinyLlama('q4_1, 8-bit activations', 'q4_1', 'q8', 'f32'),
  tinyLlama('q4_k and q6_k, 8-bit activations, float16 cache', 'q4_k', 'q8', 'f16', 'q6_k'),
  tinyLlama('int4_g128, float32 activations', 'int4_g128', 'f32', 'f32'),
  tinyLlama('int4 and int8, 8-bit activations, int8 cache', 'int4', 'q8', 'int8', 'int8'),
];

/** Models as they are used, by how their matrices are stored. */
const storedAs = [
  tinyLlama('f16', 'f16', 'f32', 'f16'),
  tinyLlama('int8', 'int8', 'q8', 'f16'),
  tinyLlama('int4', 'int4', 'q8', 'f16', 'int8'),
  tinyLlama('q4_k_m', 'q4_k', 'q8', 'f16', 'q6_k'),
];

/** Logits of all steps, one after another. */
async function logitsOf(variant: OpCase, steps: readonly Batch[], options: NativeCpuOptions): Promise<Float32Array> {
  const session = await nativeCpuBackend(options).load(variant.plan, writeWeights(variant, folder), variant.limits);
  const logits: number[] = [];
  for (const batch of steps) logits.push(...(await session.step(batch, { logits: true })).logits!);
  await session.dispose();
  return Float32Array.from(logits);
}

describe.skipIf(notBuilt)(`a tiny Llama on native kernels${notBuilt ?? ''}`, () => {
  describe.each(variants)('$name', (variant) => {
    const once = schedules['in one prefill']!;

    it('has the logits of the reference', async () => {
      const interpreter = new ReferenceInterpreter(variant.plan, writeWeights(variant, folder), variant.limits);
      const expected = interpreter.step(once[0]!, { logits: true }).logits!;
      // With 8-bit activations a last bit of x may move a code to its neighbour.
      const tolerance = variant.name.includes('8-bit') ? 2e-2 : 1e-4;
      expectClose(await logitsOf(variant, once, { isa: 'scalar', threads: 1 }), expected, tolerance, 'logits');
    });

    it.each(Object.keys(schedules))('has the same bits on every instruction set and thread count, %s', async (name) => {
      const expected = await logitsOf(variant, once, { isa: 'scalar', threads: 1 });
      expect(expected.every((value) => Number.isFinite(value))).toBe(true);
      for (const isa of isas) {
        for (const threads of [1, 2, 3, 5, undefined]) {
          const logits = await logitsOf(variant, schedules[name]!, { isa, threads, chunkTime: 0 });
          expectClose(logits, expected, 0, `${isa}, ${threads ?? 'by default some'} threads`);
        }
        const logits = await logitsOf(variant, schedules[name]!, { isa, threads: 2 });
        expectClose(logits, expected, 0, `${isa}, chunks of some size`);
      }
    });
  });

  it.each(storedAs)('$name: unique hashes of the logits: 1', async (model) => {
    const hashes = new Set<string>();
    for (const isa of isas) {
      for (const threads of [1, 2, 3]) {
        for (const batchSize of [1, 2, 5, 8]) {
          const logits = await logitsOf(model, inBatchOf(batchSize), { isa, threads, chunkTime: 0 });
          expect(logits.every((value) => Number.isFinite(value))).toBe(true);
          hashes.add(createHash('sha256').update(logits).digest('hex'));
        }
      }
    }
    expect(hashes.size).toBe(1);
  });
});
