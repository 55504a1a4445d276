import { statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Batch, Session, WeightTable } from '../../src/backend/backend.js';
import { nativeCpuBackend, nativeInfo } from '../../src/backend/native.js';
import type { ErrorCode } from '../../src/base/errors.js';
import { batchOf, writeWeights } from './case-builder.js';
import { failure } from './failure.js';
import { isas, notBuilt } from './native-availability.js';
import { csr, samplingRecords } from './sampling-records.js';
import { slowBatch, slowModel } from './slow-model.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();
const model = tinyLlama('native session', 'q8_0', 'q8', 'f32');
const weights = writeWeights(model, folder);
const [prefill] = schedules['in one prefill']!;

const load = (table = weights, limits = model.limits, signal?: AbortSignal): Promise<Session> =>
  nativeCpuBackend({ threads: 2 }).load(model.plan, table, limits, signal);

const codeOf = async (promise: Promise<unknown>): Promise<ErrorCode> => (await failure(promise)).code;

describe.skipIf(notBuilt)(`a native session${notBuilt ?? ''}`, () => {
  let session: Session;
  beforeAll(async () => {
    session = await load();
  });
  afterAll(() => session.dispose());

  describe('step', () => {
    it('copies the batch before it returns, and runs steps in order', async () => {
      const chunks = schedules['in chunks, in scattered blocks']!;
      const expected: Float32Array[] = [];
      for (const batch of chunks) expected.push((await session.step(batch, { logits: true })).logits!);
      const promises = chunks.map((batch) => {
        const copy = { ...batch, tokenIds: batch.tokenIds.slice() };
        const promise = session.step(copy, { logits: true });
        copy.tokenIds.fill(0);
        return promise;
      });
      (await Promise.all(promises)).forEach(({ logits }, i) => {
        expect(logits).toEqual(expected[i]);
      });
    });

    it('gives logits only when they are wanted', async () => {
      const result = await session.step(prefill!);
      expect(result).not.toHaveProperty('logits');
      expect(result.tokens).toEqual(new Int32Array(29).fill(-1));
    });

    it('runs without any row wanted, and without any token', async () => {
      const noRows = { ...prefill!, sampling: new Int32Array(0) };
      expect((await session.step(noRows, { logits: true })).tokens).toEqual(new Int32Array(0));
      expect((await session.step(batchOf([], 4))).tokens).toEqual(new Int32Array(0));
    });

    it('reads buffers as the last step left them', async () => {
      const { logits } = await session.step(prefill!, { logits: true });
      expect(await session.read(model.plan.logits)).toEqual(logits);
    });
  });

  describe('arguments', () => {
    const broken: [string, Partial<Batch>, ErrorCode][] = [
      ['a token id above the vocabulary', { tokenIds: prefill!.tokenIds.map(() => 117) }, 'TOKEN_ID_INVALID'],
      ['a negative token id', { tokenIds: prefill!.tokenIds.map(() => -1) }, 'TOKEN_ID_INVALID'],
      ['a position beyond the context', { positions: prefill!.positions.map(() => 64) }, 'INTERNAL'],
      ['a negative position', { positions: prefill!.positions.map(() => -1) }, 'INTERNAL'],
      ['a slot beyond the cache', { slotMapping: prefill!.slotMapping.map(() => 256) }, 'INTERNAL'],
      ['a slot below −1', { slotMapping: prefill!.slotMapping.map(() => -2) }, 'INTERNAL'],
      ['a block beyond the cache', { blockTables: prefill!.blockTables.map(() => 64) }, 'INTERNAL'],
      ['too few blocks', { blockTables: Int32Array.of(0) }, 'INTERNAL'],
      ['a context beyond its limit', { contextLens: Int32Array.of(65) }, 'INTERNAL'],
      ['a context shorter than its queries', { contextLens: Int32Array.of(28) }, 'INTERNAL'],
      ['query ranges that leave tokens out', { queryStart: Int32Array.of(0, 28) }, 'INTERNAL'],
      ['query ranges that run backwards', { queryStart: Int32Array.of(29, 0) }, 'INTERNAL'],
      ['a row beyond the tokens', { sampling: samplingRecords({ row: 29 }) }, 'INTERNAL'],
      ['a negative row', { sampling: samplingRecords({ row: -1 }) }, 'INTERNAL'],
      ['half a record', { sampling: new Int32Array(7) }, 'INTERNAL'],
      ['a temperature that is not a number', { sampling: samplingRecords({ temperature: Number.NaN }) }, 'INTERNAL'],
      ['history beyond the vocabulary', { sampling: samplingRecords({}), history: csr([117]) }, 'INTERNAL'],
      ['bias beyond the vocabulary', { sampling: samplingRecords({}), bias: csr([[-1, 1]]) }, 'INTERNAL'],
      ['a mask of the wrong length', { sampling: samplingRecords({}), mask: new Int32Array(3) }, 'INTERNAL'],
      [
        'more tokens than the limit',
        { tokenIds: new Int32Array(65), positions: new Int32Array(65), slotMapping: new Int32Array(65) },
        'INTERNAL',
      ],
      ['floats for integers', { positions: new Float32Array(29) as unknown as Int32Array }, 'INTERNAL'],
    ];
    it.each(broken)('refuses %s, and goes on', async (_, change, code) => {
      expect(await codeOf(session.step({ ...prefill!, ...change }))).toBe(code);
      expect((await session.step(prefill!)).tokens.length).toBe(29);
    });

    it('brings errors with the stack of the caller', async () => {
      async function theCaller(): Promise<void> {
        await session.step({ ...prefill!, positions: prefill!.positions.map(() => 64) });
      }
      const error = await failure(theCaller());
      expect(error.message).toContain('positions[0] is 64');
      expect(error.stack).toContain('theCaller');
    });
  });

  describe('loading', () => {
    const [file] = weights.files.keys() as IterableIterator<string>;
    const withFile = (path: string, stamp: { size: number; mtimeMs: number }): WeightTable => ({
      entries: weights.entries.map((entry) => ({ ...entry, file: path })),
      files: new Map([[path, stamp]]),
    });

    it('refuses files that are missing, changed or too short', async () => {
      const stamp = weights.files.get(file!)!;
      const missing = await failure(load(withFile('/nowhere.bin', stamp)));
      expect(missing).toMatchObject({ code: 'FILE_NOT_FOUND', parameters: { path: '/nowhere.bin' } });
      expect(await codeOf(load(withFile(file!, { ...stamp, size: stamp.size + 1 })))).toBe('FILE_CHANGED');
      expect(await codeOf(load(withFile(file!, { ...stamp, mtimeMs: stamp.mtimeMs + 1000 })))).toBe('FILE_CHANGED');
      const copy = join(folder, 'short.bin');
      writeFileSync(copy, new Uint8Array(stamp.size));
      truncateSync(copy, 1000);
      utimesSync(copy, 5, 5);
      const { size, mtimeMs } = statSync(copy);
      const short = await failure(load(withFile(copy, { size, mtimeMs })));
      expect(short.code).toBe('FORMAT_INVALID');
      expect(short.message).toContain('byte 1000');
    });

    it('says how much memory was missing', async () => {
      const limits = { ...model.limits, blockSize: 2 ** 20, numBlocks: 2 ** 10 };
      const error = await failure(load(weights, limits));
      expect(error.code).toBe('OUT_OF_MEMORY');
      expect(error.parameters).toHaveProperty('bytes', expect.any(Number));
      expect((error.parameters as { bytes: number }).bytes).toBeGreaterThan(2 ** 30 * 2 * 2 * 2 * 16 * 4);
    });

    it('stops when aborted, before and during', async () => {
      expect(await codeOf(load(weights, model.limits, AbortSignal.abort()))).toBe('ABORTED');
      const controller = new AbortController();
      const loading = load(weights, model.limits, controller.signal);
      controller.abort();
      expect(await codeOf(loading)).toBe('ABORTED');
    });
  });

  describe('dispose', () => {
    it('can be called twice, and everything after it is refused', async () => {
      const other = await load();
      await Promise.all([other.dispose(), other.dispose()]);
      await other.dispose();
      expect(await codeOf(other.step(prefill!))).toBe('DISPOSED');
      expect(await codeOf(other.read(model.plan.logits))).toBe('DISPOSED');
      expect(() => other.sample(new Float32Array(0), new Int32Array(0), { sampling: new Int32Array(0) })).toThrow(
        /was disposed/,
      );
    });

    it('stops a long step at its next op, and the steps behind it', async () => {
      const slow = slowModel(100);
      const other = await nativeCpuBackend({ threads: 2 }).load(slow.plan, writeWeights(slow, folder), slow.limits);
      const steps = [other.step(slowBatch), other.step(slowBatch)].map(codeOf);
      await setImmediate();
      const start = performance.now();
      await other.dispose();
      const milliseconds = performance.now() - start;
      expect(await Promise.all(steps)).toEqual(['DISPOSED', 'DISPOSED']);
      expect(milliseconds).toBeLessThan(1000); // the step alone takes seconds
    });
  });
});

describe.skipIf(notBuilt)(`the native backend${notBuilt ?? ''}`, () => {
  it('is named after its instruction set, which can only be lowered', () => {
    const best = isas.at(-1)!;
    expect(nativeCpuBackend().name).toBe(`native-cpu:${process.env.ENGINE_CPU_ISA || best}`);
    expect(nativeCpuBackend({ isa: 'scalar' }).name).toBe('native-cpu:scalar');
    const before = process.env.ENGINE_CPU_ISA;
    try {
      process.env.ENGINE_CPU_ISA = 'scalar';
      expect(nativeCpuBackend().name).toBe('native-cpu:scalar');
      expect(nativeCpuBackend({ isa: best }).name).toBe('native-cpu:scalar');
      expect(nativeInfo()).toMatchObject({ isa: 'scalar', isas });
      process.env.ENGINE_CPU_ISA = 'best';
      expect(() => nativeCpuBackend()).toThrow(/ENGINE_CPU_ISA is "best"; expected scalar/);
    } finally {
      if (before === undefined) delete process.env.ENGINE_CPU_ISA;
      else process.env.ENGINE_CPU_ISA = before;
    }
    expect(() => nativeCpuBackend({ isa: 'mmx' })).toThrow(/isa is "mmx"; expected scalar/);
  });

  it.each([0, -1, 1.5, 257, Number.NaN])('refuses %d threads', (threads) => {
    expect(() => nativeCpuBackend({ threads })).toThrow(/threads is/);
  });
});
