import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/backend/backend.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { writeWeights } from './case-builder.js';
import { expectClose } from './compare.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();

const variants = [
  tinyLlama('f32', 'f32', 'f32', 'f32'),
  tinyLlama('q4_1, float32 activations, float16 cache', 'q4_1', 'f32', 'f16'),
  tinyLlama('q4_1, 8-bit activations', 'q4_1', 'q8', 'f32'),
];

describe.each(variants)('a tiny Llama: $name', (variant) => {
  const weights = writeWeights(variant, folder);
  const logitsOf = (steps: readonly Batch[]): Float32Array => {
    const interpreter = new ReferenceInterpreter(variant.plan, weights, variant.limits);
    return Float32Array.from(steps.flatMap((batch) => [...interpreter.step(batch, { logits: true }).logits!]));
  };
  const [[, once], ...others] = Object.entries(schedules) as [[string, Batch[]], ...[string, Batch[]][]];
  const expected = logitsOf(once);

  it('has finite logits of some variety', () => {
    expect(expected.every((value) => Number.isFinite(value))).toBe(true);
    expect(new Set(expected).size).toBeGreaterThan(expected.length / 2);
  });

  it.each(others)('has the same logits, bit for bit, %s', (_, steps) => {
    expectClose(logitsOf(steps), expected, 0, 'logits');
  });
});
