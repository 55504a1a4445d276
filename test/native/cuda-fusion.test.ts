import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Batch, Session } from '../../src/backend/backend.js';
import { describeLaunches, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import type { Buffer } from '../../src/backend/op.js';
import { batchOf, CaseBuilder, type OpCase, writeWeights } from '../backend/case-builder.js';
import { RANDOM_VOCAB_SIZE, randomPlan } from '../backend/random-plan.js';
import { samplingRecords } from '../backend/sampling-records.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyDecoder } from '../backend/tiny-decoder.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();

const WIDTH = 64;
const HEAD_DIM = 32;
const CRAMPED_VOCAB_SIZE = 33;

/** Seeds of which every one finds a mistake that most do not. */
const RANDOM_PLANS = [0, 1, 2, 4, 6, 11, 16, 18, 30, 31, 34, 36];

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
  tinyDecoder('Llama in Q4_K and Q6_K', { dtype: 'q4_k', sensitive: 'q6_k', headDim: 64, limits: f16Cache }),
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

/** Plans that forbid what most allow: others read what is in between, or its memory is somebody else's by then. */
const cramped = [
  crampedCase('a linear whose rows nobody reads', (builder, x) => {
    builder.plan.linear(x, builder.matrix('f16', 320, WIDTH), null, 'f32');
    return builder.plan.linear(x, builder.matrix('f16', 320, WIDTH), null, 'f32');
  }),
  crampedCase('queries where keys were', (builder, x) => {
    const [queries, keys, v] = [0, 1, 2].map(() => square(builder, x)) as [Buffer, Buffer, Buffer];
    const k = builder.plan.rmsNorm(keys, builder.normal(1, HEAD_DIM), 1e-5);
    const q = builder.plan.rmsNorm(queries, builder.normal(1, HEAD_DIM), 1e-5);
    return attend(builder, q, k, v);
  }),
  crampedCase('normalised keys that are read again', (builder, x) => {
    const [q, keys, v] = [0, 1, 2].map(() => square(builder, x)) as [Buffer, Buffer, Buffer];
    const k = builder.plan.rmsNorm(keys, builder.normal(1, HEAD_DIM), 1e-5);
    const heads = attend(builder, q, k, v);
    builder.plan.add(heads, k);
    return heads;
  }),
  crampedCase('keys that are values', (builder, x) => {
    const [q, k] = [square(builder, x), square(builder, x)];
    const table = builder.plan.ropeTable({ inverseFrequencies: [1, 0.5], magnitude: 1 });
    for (const turned of [q, k]) builder.plan.rope(turned, HEAD_DIM, table, true);
    return attend(builder, q, k, k);
  }),
  crampedCase('a residual that changes before the product of its norm is added', (builder, x) => {
    const [y, z] = [square(builder, x), square(builder, x)];
    const product = square(builder, builder.plan.rmsNorm(x, builder.normal(1, WIDTH), 1e-5));
    builder.plan.add(x, y);
    builder.plan.add(z, product);
    builder.plan.add(z, x);
    return z;
  }),
];

function crampedCase(name: string, record: (builder: CaseBuilder, x: Buffer) => Buffer): OpCase {
  const builder = new CaseBuilder(41);
  const made = record(builder, builder.input(CRAMPED_VOCAB_SIZE, WIDTH));
  const logits = builder.plan.linear(
    builder.plan.selectRows(made),
    builder.matrix('f16', CRAMPED_VOCAB_SIZE, made.width),
    null,
    'f32',
  );
  const limits = { maxTokens: 40, maxRows: 40, contextSize: 64, blockSize: 4 };
  return { ...builder.finish(name, logits, { steps: [], tolerance: 0, limits }), plan: builder.plan.finish(logits) };
}

function square(builder: CaseBuilder, x: Buffer): Buffer {
  return builder.plan.linear(x, builder.matrix('f16', WIDTH, WIDTH), null, 'f32');
}

function attend({ plan }: CaseBuilder, q: Buffer, k: Buffer, v: Buffer): Buffer {
  const layer = plan.kvLayer({ numKvHeads: WIDTH / HEAD_DIM, headDim: HEAD_DIM });
  plan.writeKv(k, v, layer);
  return plan.attention(q, layer, { scale: 0.2, window: 0 });
}

/** `count` tokens from position `start` on; all rows are sampled, or the last. */
function step(start: number, count: number, numTokenIds: number, last = false): Batch {
  const blocks = Array.from({ length: Math.ceil((start + count) / 4) }, (_, b) => b);
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
  afterEach(() => {
    delete process.env.ENGINE_EMULATED_CAPABILITY;
  });

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
    it('give the bits of one after another', async () => {
      const numTokenIds = opCase.plan.logits.width;
      const steps = [1, 3, 8, 9, 32, 33, 70].map((count) => step(0, count, numTokenIds));
      steps.push(step(70, 1, numTokenIds), step(0, 9, numTokenIds, true), step(0, 70, numTokenIds, true));
      const logits = await compare(opCase, models.indexOf(opCase) % 2 === 0, steps);
      expect(logits.flatMap((rows) => [...rows]).every(Number.isFinite)).toBe(true);
    });

    it('give the bits of one after another without warpgroups', async () => {
      process.env.ENGINE_EMULATED_CAPABILITY = '80';
      await compare(opCase, models.indexOf(opCase) % 2 === 0, [step(0, 33, opCase.plan.logits.width)]);
    });
  });

  it('give the bits of one after another where weights are halved first', async () => {
    const limits = { maxTokens: 260, contextSize: 260, numBlocks: 65 };
    const opCase = tinyDecoder('Llama of many rows', { dtype: 'q8_0', headDim: 16, windows: [8], limits });
    process.env.ENGINE_EMULATED_CAPABILITY = '80';
    await compare(opCase, false, [step(0, 260, opCase.plan.logits.width, true)]);
  });

  it.each(cramped)('give the bits of one after another beside $name', async (opCase) => {
    await compare(opCase, false, [step(0, 5, CRAMPED_VOCAB_SIZE), step(5, 34, CRAMPED_VOCAB_SIZE)]);
  });

  it('give the bits of one after another in plans of any ops', async () => {
    let finite = 0;
    for (const seed of RANDOM_PLANS) {
      const steps = [step(0, 5, RANDOM_VOCAB_SIZE), step(5, 34, RANDOM_VOCAB_SIZE, true)];
      const logits = await compare(randomPlan(seed), seed % 2 === 0, steps);
      if (logits.every((rows) => rows.every(Number.isFinite))) finite++;
    }
    expect(finite).toBeGreaterThan(RANDOM_PLANS.length / 2);
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
    const layerOf = (name: string, tokens: number) => {
      const launches = launchesOf(models.find((opCase) => opCase.name === name)!, tokens);
      const end = launches.findIndex((launch) => launch.startsWith('attention')) + 5;
      return [`${name}, ${tokens} tokens`, ...launches.slice(0, end)].join('\n  ');
    };
    const text = [
      layerOf('Llama', 1),
      layerOf('Llama', 40),
      layerOf('Llama in Q4_K and Q6_K', 1),
      layerOf('Qwen3', 1),
      layerOf('Qwen3, each normalised at once', 1),
      layerOf('GPT-2', 1),
      layerOf('Phi', 1),
      layerOf('parallel Llama', 40),
    ];
    process.env.ENGINE_EMULATED_CAPABILITY = '80';
    text.push(`without warpgroups: ${layerOf('Llama', 40)}`);
    expect(text.join('\n')).toMatchInlineSnapshot(`
      "Llama, 1 tokens
        embed
        linear (prepare, rmsNorm, 3 linears, heads)
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 3 linears, heads)
      Llama, 40 tokens
        embed
        prepare (rmsNorm)
        linearWarpgroup
        linearWarpgroup
        linearWarpgroup
        heads
        attentionMany
        prepare
        linearWarpgroup (add)
        prepare (rmsNorm)
        linearWarpgroup
      Llama in Q4_K and Q6_K, 1 tokens
        embed
        linear (prepare, rmsNorm, 2 linears)
        linear (prepare, rmsNorm)
        heads
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears)
      Qwen3, 1 tokens
        embed
        linear (prepare, rmsNorm, 3 linears)
        heads (rmsNorm)
        attention
        linear (prepare, add)
        linear (prepare, rmsNorm, 2 linears, siluMul)
        linear (prepare, add)
        linear (prepare, rmsNorm, 3 linears)
      Qwen3, each normalised at once, 1 tokens
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
      GPT-2, 1 tokens
        embed
        embed
        layerNorm
        linear (prepare, 3 linears, heads)
        attention
        linear (prepare, add)
        layerNorm
        linear (prepare)
        gelu
      Phi, 1 tokens
        embed
        layerNorm
        linear (prepare, 3 linears)
        heads
        attention
        linear (prepare)
        gelu
        linear (prepare, add)
        linear (prepare, add)
      parallel Llama, 40 tokens
        embed
        prepare (rmsNorm)
        linearWarpgroup
        linearWarpgroup
        linearWarpgroup
        heads
        attention
        linearWarpgroup
        linearWarpgroup
        prepare (siluMul)
        linearWarpgroup
      without warpgroups: Llama, 40 tokens
        embed
        prepare (rmsNorm)
        linearBatch
        linearBatch
        linearBatch
        heads
        attentionMany
        prepare
        linearBatch (add)
        prepare (rmsNorm)
        linearBatch"
    `);
  });
});
