import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Batch, Session, SessionLimits } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import {
  cudaInfo,
  describeLaunches,
  type NativeCudaOptions,
  nativeCudaBackend,
} from '../../src/backend/native-cuda.js';
import { opNames } from '../../src/backend/op.js';
import { LOGPROBS, SAMPLE, SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import { EngineError } from '../../src/base/errors.js';
import { batchOf, CaseBuilder, type OpCase, writeWeights } from '../backend/case-builder.js';
import { expectClose } from '../backend/compare.js';
import { csr, type RecordOptions, samplingRecords } from '../backend/sampling-records.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();
const models = [
  tinyLlama('f32', 'f32', 'f32', 'f32'),
  tinyLlama('f16', 'f16', 'f32', 'f16'),
  tinyLlama('q8_0, float16 cache', 'q8_0', 'f32', 'f16'),
  tinyLlama('q4_k and q6_k, float16 cache', 'q4_k', 'f32', 'f16', 'q6_k'),
  tinyLlama('int4 and int8, int8 cache', 'int4', 'f32', 'int8', 'int8'),
];
const model = models[0]!;
const packed = models[4]!;

const failure = async (promise: Promise<unknown>): Promise<EngineError> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof EngineError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
};

/** Logits of all steps, one after another. */
async function logitsOf(session: Session, steps: readonly Batch[]): Promise<Float32Array> {
  const logits: number[] = [];
  for (const batch of steps) logits.push(...(await session.step(batch, { logits: true })).logits!);
  await session.dispose();
  return Float32Array.from(logits);
}

describe.skipIf(noEmulatedCuda)(`a session on an emulated GPU${noEmulatedCuda ?? ''}`, { timeout: 120_000 }, () => {
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);
  afterEach(() => {
    delete process.env.ENGINE_EMULATED_CAPABILITY;
    delete process.env.ENGINE_EMULATED_FAILURE;
    delete process.env.ENGINE_EMULATED_NONE;
  });

  const cuda = (opCase: OpCase, options: NativeCudaOptions = {}, limits: SessionLimits = opCase.limits) =>
    nativeCudaBackend({ library, precise: true, threads: 2, ...options }).load(
      opCase.plan,
      writeWeights(opCase, folder),
      limits,
    );
  const cpu = (opCase: OpCase) =>
    nativeCpuBackend({ threads: 1 }).load(opCase.plan, writeWeights(opCase, folder), opCase.limits);

  describe.each(models)('a tiny Llama, $name', (opCase) => {
    it('has the logits of the CPU', async () => {
      const steps = schedules['in one prefill']!;
      const expected = await logitsOf(await cpu(opCase), steps);
      // A key or value may become the neighbouring code, of 8 bits or of an f16.
      const tolerance = opCase.limits.kvDtype === 'f32' ? 1e-5 : opCase.limits.kvDtype === 'f16' ? 1e-3 : 3e-2;
      expectClose(await logitsOf(await cuda(opCase), steps), expected, tolerance, 'logits');
    });
  });

  it('is near with activations of 11 bits', async () => {
    const steps = schedules['in one prefill']!;
    const expected = await logitsOf(await cpu(model), steps);
    const logits = await logitsOf(await cuda(model, { precise: false }), steps);
    expectClose(logits, expected, 1e-2, 'logits');
    expect(() => expectClose(logits, expected, 1e-5, 'logits')).toThrow();
  });

  it.each([models[1]!, models[4]!])(
    'has the same bits in steps of up to 16 rows, padded, replayed or not: $name',
    async (opCase) => {
      const tokenByToken = schedules['token by token']!;
      const expected = await logitsOf(await cuda(opCase, { graphs: false }), tokenByToken);
      const inChunks = schedules['in chunks, in scattered blocks']!;
      expectClose(await logitsOf(await cuda(opCase), tokenByToken), expected, 0, 'as a graph');
      expectClose(await logitsOf(await cuda(opCase), inChunks), expected, 0, 'in chunks');
    },
  );

  it.each([models[1]!, models[4]!])(
    'has the same bits of many rows with each kind of product: $name',
    async (opCase) => {
      // Three sequences, 45 rows.
      const steps = [
        batchOf(
          [0, 1, 2].map((sequence) => ({
            start: 0,
            count: 15,
            blocks: [0, 1, 2, 3].map((block) => 4 * sequence + block),
            tokenIds: Array.from({ length: 15 }, (_, i) => (31 * sequence + 7 * i) % 117),
          })),
          4,
        ),
      ];
      const logits = await logitsOf(await cuda(opCase), steps);
      expectClose(logits, await logitsOf(await cpu(opCase), steps), 3e-2, 'logits');
      process.env.ENGINE_EMULATED_CAPABILITY = '80';
      expectClose(await logitsOf(await cuda(opCase), steps), logits, 0, 'without warpgroups');
    },
  );

  it('samples the tokens that the CPU samples from its logits', async () => {
    const [prefill] = schedules['in one prefill']!;
    const row = (options: RecordOptions): RecordOptions => ({ row: 28, flags: SAMPLE | LOGPROBS, ...options });
    const batch = {
      ...prefill!,
      sampling: samplingRecords(
        row({ temperature: 0, numTop: 3 }),
        row({ temperature: 1, seedLow: 5, numTop: 0 }),
        row({ temperature: 2, seedLow: 6, topK: 20, topP: 0.9, repetitionPenalty: 1.3, promptLength: 1, numTop: 5 }),
        row({ temperature: 1.5, seedLow: 7 }),
      ),
      history: csr([], [], [3, 4, 4, 9], []),
      bias: csr([], [[7, 2]], [], [[11, Number.NEGATIVE_INFINITY]]),
      mask: new Int32Array(4 * 4).fill(-1),
    };
    const session = await cuda(model);
    const result = await session.step(batch, { logits: true, hidden: true });
    const positions = new Int32Array(4).fill(28);
    const records = { ...batch, sampling: batch.sampling.slice() };
    for (let r = 0; r < 4; r++) records.sampling[r * SAMPLING_WORDS + samplingIndex.row] = r;
    const expected = session.sample(result.logits!, positions, records);
    expect(result.tokens).toEqual(expected.tokens);
    expect(result.topIds).toEqual(expected.topIds);
    expect(result.logprobs).toEqual(expected.logprobs);
    expect(result.topLogprobs).toEqual(expected.topLogprobs);
    expect(result.tokens.every((token) => token >= 0)).toBe(true);
    expect(result.hidden!.some((value) => value !== 0)).toBe(true);
    await session.dispose();
  });

  it('runs steps without rows, without tokens, and for hidden states alone', async () => {
    const [prefill] = schedules['in one prefill']!;
    const session = await cuda(model);
    const full = await session.step(prefill!, { logits: true, hidden: true });
    const hidden = await session.step({ ...prefill!, sampling: samplingRecords({ row: 28 }) }, { hidden: true });
    expect(hidden.hidden).toEqual(full.hidden!.slice(-hidden.hidden!.length));
    expect((await session.step({ ...prefill!, sampling: new Int32Array(0) })).tokens).toEqual(new Int32Array(0));
    expect((await session.step(batchOf([], 4))).tokens).toEqual(new Int32Array(0));
    await session.dispose();
  });

  it('copies, saves and loads blocks', async () => {
    const [first, ...rest] = schedules['in chunks, in scattered blocks']!;
    const expected = await logitsOf(await cuda(model), [first!, ...rest]);
    const session = await cuda(model);
    await session.step(first!, { logits: true });
    const path = join(folder, 'blocks');
    const blocks = Int32Array.of(...first!.blockTables);
    await session.saveBlocks(path, blocks, new Uint8Array(3));
    await session.dispose();

    const other = await cuda(model);
    await other.loadBlocks(path, blocks, new Uint8Array(3));
    // There and back again: what is not copied is lost.
    const away = Int32Array.from(blocks, (_, i) => 20 + i);
    const pairs = (from: Int32Array, to: Int32Array) =>
      Int32Array.from({ length: 2 * from.length }, (_, i) => (i % 2 ? to : from)[i >> 1]!);
    await other.copyBlocks(pairs(blocks, away));
    await other.copyBlocks(
      pairs(
        Int32Array.from(blocks, () => 60),
        blocks,
      ),
    );
    await other.copyBlocks(pairs(away, blocks));
    const logits = await logitsOf(other, rest);
    expectClose(logits, expected.slice(-logits.length), 0, 'logits after the blocks were loaded');
    const onCpu = await cpu(model);
    expect((await failure(onCpu.loadBlocks(path, blocks, new Uint8Array(3)))).message).toMatch(/another backend/);
    await onCpu.dispose();
  });

  it('frees what it took, and tells what it would have needed', async () => {
    const before = freeMemory(library);
    const session = await cuda(model);
    expect(freeMemory(library)).toBeLessThan(before);
    await session.dispose();
    expect(freeMemory(library)).toBe(before);
    const error = await failure(cuda(model, {}, { ...model.limits, numBlocks: 2 ** 21 }));
    expect(error.code).toBe('OUT_OF_MEMORY');
    expect(error.message).toMatch(
      /weights \d+ bytes, keys and values \d{10,}, activations \d+; \d+ of 1073741824 were free/,
    );
    expect(freeMemory(library)).toBe(before);
  });

  it('rejects its steps when the GPU is lost, also those that follow, and ends', async () => {
    const [prefill] = schedules['in one prefill']!;
    const session = await cuda(model);
    await session.step(prefill!);
    process.env.ENGINE_EMULATED_FAILURE = '5';
    const steps = [session.step(prefill!), session.step(prefill!)].map(failure);
    for (const error of await Promise.all(steps)) {
      expect(error).toMatchObject({ code: 'DEVICE_FAILED', parameters: { device: 'Emulated GPU' } });
    }
    delete process.env.ENGINE_EMULATED_FAILURE;
    expect((await failure(session.read(model.plan.logits))).code).toBe('DEVICE_FAILED');
    await session.dispose();
  });

  it('refuses heads that kernels have no room for, GPUs that are not there, and other libraries', async () => {
    const builder = new CaseBuilder(5);
    const layer = builder.plan.kvLayer({ numKvHeads: 1, headDim: 320 });
    const q = builder.input(21, 320);
    builder.plan.writeKv(builder.input(21, 320), builder.input(21, 320), layer);
    const wide = builder.finish('wide', builder.plan.attention(q, layer, { scale: 1, window: 0 }), {
      steps: [],
      tolerance: 0,
    });
    expect((await failure(cuda(wide))).message).toMatch(/heads of 320 values; supported: up to 256/);
    expect(() => nativeCudaBackend({ library, device: 1 })).toThrow(/there is no GPU 1; there are 1/);
    process.env.ENGINE_EMULATED_NONE = '1';
    expect(() => nativeCudaBackend({ library })).toThrow(/no GPU that CUDA can use/);
    expect(() => nativeCudaBackend({ library: join(folder, 'nothing.so') })).toThrow(
      /there is no .*nothing.so; install/,
    );
    expect(() => nativeCudaBackend({ library: '/proc/self/exe' })).toThrow(/native-cuda is not available/);
  });

  describe('the launch plan', () => {
    const launches = (tokens: number, rows: number, contextLength = 10) =>
      describeLaunches(
        model.plan,
        writeWeights(model, folder),
        model.limits,
        { tokens, rows, contextLength },
        { library },
      )
        .trimEnd()
        .split('\n');

    it('has other linears where warpgroups multiply, and no copy of halved weights', () => {
      const limits = { ...model.limits, maxTokens: 512 };
      const kernels = (capability: string) => {
        process.env.ENGINE_EMULATED_CAPABILITY = capability;
        const step = { tokens: 300, rows: 40, contextLength: 10 };
        const text = describeLaunches(packed.plan, writeWeights(packed, folder), limits, step, { library });
        return new Set([...text.matchAll(/ (linear\w*|halve) \d/g)].map(([, kernel]) => kernel));
      };
      expect(kernels('90')).toEqual(new Set(['linearWarpgroup']));
      expect(kernels('80')).toEqual(new Set(['halve', 'linearMany', 'linearBatch']));
    });

    it('does every op once, in order, within the limits of the device', () => {
      for (const [tokens, rows] of [
        [1, 1],
        [3, 2],
        [29, 29],
        [64, 1],
      ] as const) {
        const parsed = launches(tokens, rows).map((line) => {
          const [, op, name, kernel, x, y, threads, shared] =
            /^(\d+) (\w+): (\w+) (\d+)x(\d+) blocks of (\d+), (\d+) bytes$/.exec(line)!;
          expect(Math.min(Number(x), Number(y))).toBeGreaterThan(0);
          expect(Number(threads)).toBeLessThanOrEqual(1024);
          expect(Number(shared)).toBeLessThanOrEqual((kernel === 'linearWarpgroup' ? 227 : 99) * 1024);
          return { op: Number(op), name, kernel: kernel! };
        });
        const work = parsed.filter(({ kernel }) => !['prepare', 'halve'].includes(kernel));
        const ops = model.plan.ops.map(({ op }, i) => ({ op: i, name: op }));
        expect(work.map(({ op, name }) => ({ op, name }))).toEqual([...ops, { op: ops.length, name: 'sampling' }]);
        expect(opNames).toEqual(expect.arrayContaining(ops.map(({ name }) => name)));
        expect(parsed.map(({ op }) => op)).toEqual(parsed.map(({ op }) => op).toSorted((a, b) => a - b));
      }
    });

    it('pads small steps', () => {
      expect(launches(3, 3)).toEqual(launches(4, 4));
      expect(launches(5, 4)).not.toEqual(launches(4, 4));
    });

    it('of one token is this', () => {
      expect(launches(1, 1).slice(0, 20).join('\n')).toMatchInlineSnapshot(`
        "0 embed: embed 1x1 blocks of 256, 0 bytes
        1 rmsNorm: rmsNorm 1x1 blocks of 256, 0 bytes
        2 linear: prepare 8x1 blocks of 256, 0 bytes
        2 linear: linear 4x1 blocks of 256, 86336 bytes
        3 linear: linear 2x1 blocks of 256, 86336 bytes
        4 linear: linear 2x1 blocks of 256, 86336 bytes
        5 rope: rope 1x1 blocks of 256, 0 bytes
        6 rope: rope 1x1 blocks of 256, 0 bytes
        7 writeKv: writeKv 1x1 blocks of 128, 0 bytes
        8 attention: attention 2x1 blocks of 256, 27008 bytes
        9 linear: prepare 8x1 blocks of 256, 0 bytes
        9 linear: linear 4x1 blocks of 256, 86336 bytes
        10 add: add 1x1 blocks of 256, 0 bytes
        11 rmsNorm: rmsNorm 1x1 blocks of 256, 0 bytes
        12 linear: prepare 8x1 blocks of 256, 0 bytes
        12 linear: linear 8x1 blocks of 256, 86336 bytes
        13 linear: linear 8x1 blocks of 256, 86336 bytes
        14 siluMul: siluMul 1x1 blocks of 256, 0 bytes
        15 linear: prepare 8x1 blocks of 256, 0 bytes
        15 linear: linear 4x1 blocks of 256, 86336 bytes"
      `);
    });
  });
});

function freeMemory(library: string): number {
  process.env.ENGINE_CUDA_LIBRARY = library;
  try {
    return cudaInfo().devices[0]!.freeMemory;
  } finally {
    delete process.env.ENGINE_CUDA_LIBRARY;
  }
}
