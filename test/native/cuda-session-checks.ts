import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Batch, Session, SessionLimits } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { cudaInfo, type NativeCudaOptions, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { LOGPROBS, SAMPLE, SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import { batchOf, CaseBuilder, type OpCase, writeWeights } from '../backend/case-builder.js';
import { expectClose } from '../backend/compare.js';
import { failure } from '../backend/failure.js';
import { csr, type RecordOptions, samplingRecords } from '../backend/sampling-records.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';

export const models = [
  tinyLlama('f32', 'f32', 'f32', 'f32'),
  tinyLlama('f16', 'f16', 'f32', 'f16'),
  tinyLlama('q8_0, float16 cache', 'q8_0', 'f32', 'f16'),
  tinyLlama('q4_k and q6_k, float16 cache', 'q4_k', 'f32', 'f16', 'q6_k'),
  tinyLlama('int4 and int8, int8 cache', 'int4', 'f32', 'int8', 'int8'),
];
export const model = models[0]!;

/** Logits of all steps, one after another. */
export async function logitsOf(session: Session, steps: readonly Batch[]): Promise<Float32Array> {
  const logits: number[] = [];
  for (const batch of steps) logits.push(...(await session.step(batch, { logits: true })).logits!);
  await session.dispose();
  return Float32Array.from(logits);
}

export type LoadCuda = (opCase: OpCase, options?: NativeCudaOptions, limits?: SessionLimits) => Promise<Session>;

/** Loads cases with this library, their weights written to the folder. */
export function cudaLoader(library: () => string, folder: string): LoadCuda {
  return (opCase, options = {}, limits = opCase.limits) =>
    nativeCudaBackend({ library: library(), precise: true, threads: 2, ...options }).load(
      opCase.plan,
      writeWeights(opCase, folder),
      limits,
    );
}

export function loadCpu(opCase: OpCase, folder: string): Promise<Session> {
  return nativeCpuBackend({ threads: 1 }).load(opCase.plan, writeWeights(opCase, folder), opCase.limits);
}

/** What holds for a session on any GPU, be it an emulated one. The library is asked for when tests run. */
export function checkCudaSessions(library: () => string, folder: string): void {
  const cuda = cudaLoader(library, folder);
  const cpu = (opCase: OpCase) => loadCpu(opCase, folder);

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
    'has the same bits in steps of up to 32 rows, alone or not, padded, replayed or not: $name',
    async (opCase) => {
      const tokenByToken = schedules['token by token']!;
      const expected = await logitsOf(await cuda(opCase, { graphs: false }), tokenByToken);
      const inChunks = schedules['in chunks, in scattered blocks']!;
      expectClose(await logitsOf(await cuda(opCase), tokenByToken), expected, 0, 'as a graph');
      expectClose(await logitsOf(await cuda(opCase), inChunks), expected, 0, 'in chunks');
      const beside = schedules['beside another sequence']!;
      expectClose(await logitsOf(await cuda(opCase), beside), expected, 0, 'beside another sequence');
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
    const [prefill] = schedules['in one prefill']!;
    await logitsOf(await cuda(model), [prefill!]); // the code of kernels stays on the device
    const before = freeMemory(library());
    const session = await cuda(model);
    expect(freeMemory(library())).toBeLessThan(before);
    await session.dispose();
    expect(freeMemory(library())).toBe(before);
    const error = await failure(cuda(model, {}, { ...model.limits, numBlocks: 2 ** 28 }));
    expect(error.code).toBe('OUT_OF_MEMORY');
    expect(error.message).toMatch(/weights \d+ bytes, keys and values \d{10,}, activations \d+; \d+ of \d+ were free/);
    expect(freeMemory(library())).toBe(before);
  });

  it('refuses heads that kernels have no room for, and GPUs that are not there', async () => {
    const builder = new CaseBuilder(5);
    const layer = builder.plan.kvLayer({ numKvHeads: 1, headDim: 320 });
    const q = builder.input(21, 320);
    builder.plan.writeKv(builder.input(21, 320), builder.input(21, 320), layer);
    const wide = builder.finish('wide', builder.plan.attention(q, layer, { scale: 1, window: 0 }), {
      steps: [],
      tolerance: 0,
    });
    expect((await failure(cuda(wide))).message).toMatch(/heads of 320 values; supported: up to 256/);
    expect(() => nativeCudaBackend({ library: library(), device: 999 })).toThrow(/there is no GPU 999; there are \d+/);
  });
}

function freeMemory(library: string): number {
  process.env.ENGINE_CUDA_LIBRARY = library;
  try {
    return cudaInfo().devices[0]!.freeMemory;
  } finally {
    delete process.env.ENGINE_CUDA_LIBRARY;
  }
}
