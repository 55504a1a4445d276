import { beforeAll, describe, expect, it } from 'vitest';
import type { Batch, Session } from '../../src/backend/backend.js';
import { describeLaunches, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { batchOf, type OpCase, writeWeights } from '../backend/case-builder.js';
import { randomPlan } from '../backend/random-plan.js';
import { samplingRecords } from '../backend/sampling-records.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { CONTEXT_SIZE, tinyDecoder } from '../backend/tiny-decoder.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();

const f16Cache = { kvDtype: 'f16' } as const;
const models = [
  tinyDecoder('Llama', { dtype: 'f16', headDim: 32, limits: f16Cache }),
  tinyDecoder('Llama of neighbouring pairs, tied', {
    dtype: 'q8_0',
    headDim: 16,
    interleaved: true,
    tied: true,
    windows: [0, 6],
    limits: f16Cache,
  }),
  tinyDecoder('Llama in mixed types, biased', {
    dtype: 'q4_0',
    sensitive: 'f32',
    headDim: 32,
    biases: 'attention',
    limits: { kvDtype: 'int8' },
  }),
  tinyDecoder('Qwen3', { dtype: 'f16', headDim: 32, headNorms: true, limits: f16Cache }),
  tinyDecoder('Qwen3, each normalised at once', { dtype: 'f16', headDim: 16, headNorms: true, earlyNorms: true }),
  tinyDecoder('GPT-2', {
    dtype: 'f16',
    headDim: 16,
    norm: 'layer',
    biases: 'all',
    rotated: 0,
    mlp: 'gelu',
    tied: true,
  }),
  tinyDecoder('Phi', {
    dtype: 'f32',
    headDim: 16,
    norm: 'layer',
    biases: 'all',
    rotated: 8,
    mlp: 'gelu',
    parallel: true,
  }),
  tinyDecoder('parallel Llama', { dtype: 'int4', sensitive: 'int8', headDim: 64, parallel: true }),
];

/** `count` tokens from position `start` on; all rows are sampled, or the last. */
function step(start: number, count: number, numTokenIds: number, last = false): Batch {
  const blocks = Array.from({ length: CONTEXT_SIZE / 4 }, (_, b) => b);
  const tokenIds = Array.from({ length: count }, (_, i) => ((start + i) * 37) % numTokenIds);
  const rows = Array.from({ length: last ? 1 : count }, (_, i) => (last ? count - 1 : i));
  const sampling = samplingRecords(...rows.map((row) => ({ row, seedLow: row, temperature: row % 2 })));
  return { ...batchOf([{ start, count, blocks, tokenIds }], 4), sampling };
}

describe.skipIf(noEmulatedCuda)(`ops done together${noEmulatedCuda ?? ''}`, { timeout: 300_000 }, () => {
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);

  /** Runs the steps with and without fusion, and compares all that comes back. Returns the logits. */
  async function compare(opCase: OpCase, precise: boolean, steps: readonly Batch[]): Promise<Float32Array[]> {
    const load = (fused: boolean): Promise<Session> =>
      nativeCudaBackend({ library, precise, fused, threads: 1 }).load(
        opCase.plan,
        writeWeights(opCase, folder),
        opCase.limits,
      );
    const [fused, plain] = [await load(true), await load(false)];
    const logits: Float32Array[] = [];
    for (const batch of steps) {
      const what = `${batch.tokenIds.length} tokens, ${batch.sampling.length} words of sampling`;
      const want = { logits: true, hidden: true };
      const [actual, expected] = [await fused.step(batch, want), await plain.step(batch, want)];
      expect(actual.logits, what).toEqual(expected.logits);
      expect(actual.hidden, what).toEqual(expected.hidden);
      expect(actual.tokens, what).toEqual(expected.tokens);
      logits.push(actual.logits!);
    }
    await fused.dispose();
    await plain.dispose();
    return logits;
  }

  describe.each(models)('of a tiny $name', (opCase) => {
    it.each([false, true])('give the bits of one after another, precise: %s', async (precise) => {
      const numTokenIds = opCase.plan.logits.width;
      const steps = [1, 3, 8, 9, 32, 33, 70].flatMap((count) => [
        step(0, count, numTokenIds),
        step(0, count, numTokenIds, true),
        step(count, 1, numTokenIds),
      ]);
      const logits = await compare(opCase, precise, steps);
      expect(logits.flatMap((rows) => [...rows]).every(Number.isFinite)).toBe(true);
    });
  });

  it('give the bits of one after another in plans of any ops', async () => {
    let finite = 0;
    const seeds = Array.from({ length: 40 }, (_, i) => i);
    for (const seed of seeds) {
      const logits = await compare(randomPlan(seed), seed % 2 === 0, [
        step(0, 3, 33),
        step(3, 34, 33),
        step(37, 9, 33, true),
      ]);
      if (logits.every((rows) => rows.every(Number.isFinite))) finite++;
    }
    expect(finite).toBeGreaterThan(seeds.length / 2);
  });

  it('are what the launches of a layer say', () => {
    const launchesOf = (opCase: OpCase, tokens: number) =>
      describeLaunches(
        opCase.plan,
        writeWeights(opCase, folder),
        opCase.limits,
        { tokens, rows: 1, contextLength: 70 },
        { library },
      )
        .split('\n')
        .map((line) => /: (.+?) \d+x\d+ blocks/.exec(line)?.[1] ?? '')
        .filter((launch) => launch !== '');
    const text = models.flatMap((opCase) =>
      [1, 40].map((tokens) => {
        const launches = launchesOf(opCase, tokens);
        const layer = launches.slice(0, launches.indexOf('attention', launches.indexOf('attention') + 1));
        return [`${opCase.name}, ${tokens}`, ...layer].join('\n  ');
      }),
    );
    expect(text.join('\n')).toMatchInlineSnapshot(`
      "Llama, 1
        embed
        linear (prepare, rmsNorm, 3 linears, heads)
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 3 linears, heads)
      Llama, 40
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
        attention
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        prepare (siluMul)
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
      Llama of neighbouring pairs, tied, 1
        embed
        linear (prepare, rmsNorm, 3 linears, heads)
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 3 linears, heads)
      Llama of neighbouring pairs, tied, 40
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
        attention
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        prepare (siluMul)
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
      Llama in mixed types, biased, 1
        embed
        linear (prepare, rmsNorm, 2 linears)
        linear (prepare, rmsNorm)
        heads
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears)
        linear (prepare, rmsNorm)
        heads
      Llama in mixed types, biased, 40
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
        attention
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        prepare (siluMul)
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
      Qwen3, 1
        embed
        linear (prepare, rmsNorm, 3 linears)
        heads (rmsNorm)
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 3 linears)
        heads (rmsNorm)
      Qwen3, 40
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads (rmsNorm)
        attention
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        prepare (siluMul)
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads (rmsNorm)
      Qwen3, each normalised at once, 1
        embed
        linear (prepare, rmsNorm)
        rmsNorm
        linear (prepare, rmsNorm)
        rmsNorm
        linear (prepare, rmsNorm)
        rope
        rope
        writeKv
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm)
        rmsNorm
        linear (prepare, rmsNorm)
        rmsNorm
        linear (prepare, rmsNorm)
        rope
        rope
        writeKv
      Qwen3, each normalised at once, 40
        embed
        prepare (rmsNorm)
        linearBatch
        rmsNorm
        linearBatch
        rmsNorm
        linearBatch
        rope
        rope
        writeKv
        attention
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        prepare (siluMul)
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        rmsNorm
        linearBatch
        rmsNorm
        linearBatch
        rope
        rope
        writeKv
      GPT-2, 1
        embed
        embed
        layerNorm
        linear (prepare, 3 linears, heads)
        attention
        linear (prepare, add)
        layerNorm
        linear (prepare)
        gelu
        linear (prepare, add)
        layerNorm
        linear (prepare, 3 linears, heads)
      GPT-2, 40
        embed
        embed
        layerNorm
        prepare
        linearBatch
        linearBatch
        linearBatch
        writeKv
        attention
        prepare
        linearBatch (add)
        layerNorm
        prepare
        linearBatch
        gelu
        prepare
        linearBatch (add)
        layerNorm
        prepare
        linearBatch
        linearBatch
        linearBatch
        writeKv
      Phi, 1
        embed
        layerNorm
        linear (prepare, 3 linears)
        heads
        attention
        linear (prepare)
        gelu
        linear (prepare, add)
        linear (prepare, add)
        layerNorm
        linear (prepare, 3 linears)
        heads
      Phi, 40
        embed
        layerNorm
        prepare
        linearBatch
        linearBatch
        linearBatch
        heads
        attention
        linearBatch
        gelu
        prepare
        linearBatch (add)
        prepare
        linearBatch (add)
        layerNorm
        prepare
        linearBatch
        linearBatch
        linearBatch
        heads
      parallel Llama, 1
        embed
        linear (prepare, rmsNorm, 2 linears)
        linear (prepare, rmsNorm)
        heads
        attention
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears)
        linear (prepare, rmsNorm)
        heads
      parallel Llama, 40
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
        attention
        linearBatch
        linearBatch
        siluMul
        prepare
        linearBatch (add)
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads"
    `);
  });
});
