import { describe, expect, it } from 'vitest';
import { loadNativeAddon } from '../../src/backend/native-loader.js';
import {
  ATTENTION_WIDTH,
  type MeasuredKernel,
  type MeasureRequest,
  measuredKernels,
  measureNatively,
} from '../../src/backend/native-measure.js';
import { type DType, dtypes, matrixBytes } from '../../src/tensor/dtype.js';
import { isas, notBuilt } from '../backend/native-availability.js';

const small = { rows: 64, columns: 512, tokens: 1, threads: 1, repetitions: 5 } as const;
const fastest = async (request: MeasureRequest) => Math.min(...(await measureNatively(request)).nanoseconds);

describe.skipIf(notBuilt)(`measuring kernels${notBuilt ?? ''}`, () => {
  const cases = isas.flatMap((isa) => measuredKernels.map((what) => [isa, what] as const));
  it.each(cases)('%s: times %s, alone and on several threads', async (isa, what) => {
    const columns = what === 'attention' ? ATTENTION_WIDTH : 512;
    for (const threads of [1, 2, 5]) {
      const { nanoseconds, bytes, operations } = await measureNatively({ ...small, what, isa, columns, threads });
      expect(nanoseconds).toHaveLength(small.repetitions);
      for (const time of nanoseconds) expect(time).toBeGreaterThan(0);
      expect(nanoseconds.every(Number.isFinite)).toBe(true);
      expect(bytes + operations).toBeGreaterThan(0);
    }
  });

  it.each(Object.keys(dtypes) as DType[])('multiplies a matrix stored as %s', async (dtype) => {
    for (const [rows, tokens] of [
      [5, 1],
      [33, 1],
      [64, 9],
    ] as const) {
      const { bytes, operations } = await measureNatively({ ...small, what: 'linear', dtype, rows, tokens });
      const stored = matrixBytes(dtype, rows, small.columns)!;
      // Packed, rows are padded to whole panels.
      expect(bytes).toBeGreaterThan(0.97 * stored);
      expect(bytes).toBeLessThan((1.1 * stored * (Math.ceil(rows / 16) * 16)) / rows + 64);
      expect(operations).toBe(2 * rows * small.columns * tokens);
    }
  });

  it('takes longer for more', async () => {
    const time = (what: MeasuredKernel, rows: number, columns: number, dtype: DType = 'q4_0') =>
      fastest({ what, dtype, rows, columns, threads: 1, repetitions: 20 });
    expect(await time('read', 4096, 4096)).toBeGreaterThan(await time('read', 256, 4096));
    expect(await time('linear', 2048, 1024)).toBeGreaterThan(await time('linear', 128, 1024));
    expect(await time('multiply_add', 16_000, 1)).toBeGreaterThan(4 * (await time('multiply_add', 1000, 1)));
    expect(await time('dot4', 1600, 1)).toBeGreaterThan(4 * (await time('dot4', 100, 1)));
  });

  it('reads memory at a plausible rate', async () => {
    const request = { what: 'read', rows: 4096, columns: 4096, threads: 1, repetitions: 10 } as const;
    const { nanoseconds, bytes } = await measureNatively({ ...request, coldBytes: 2 ** 27 });
    expect(bytes).toBe(4096 * 4096);
    const rate = bytes / Math.min(...nanoseconds);
    expect(rate).toBeGreaterThan(0.5);
    expect(rate).toBeLessThan(2000);
  });

  it('ends when the time is over, after three runs at least', async () => {
    const request = { what: 'multiply_add', rows: 10_000, columns: 1, threads: 1, repetitions: 10_000 } as const;
    expect((await measureNatively({ ...request, seconds: 0 })).nanoseconds).toHaveLength(3);
  });

  it('stops when it is aborted', async () => {
    const request = { what: 'multiply_add', rows: 2 ** 20, columns: 1, threads: 2, repetitions: 10_000 } as const;
    const signal = AbortSignal.timeout(50);
    await expect(measureNatively({ ...request, seconds: 60, signal })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(measureNatively({ ...request, signal })).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it.each([
    [{ what: 'write' as MeasuredKernel }, 'what is "write"; expected one of read, '],
    [{ rows: 0 }, 'rows is 0; expected a whole number from 1 to 1048576'],
    [{ rows: 2 ** 20 + 1 }, 'rows is 1048577'],
    [{ columns: 2 ** 17 + 1 }, 'columns is 131073'],
    [{ tokens: 4097 }, 'tokens is 4097'],
    [{ threads: 257 }, 'threads is 257; expected a whole number from 1 to 256'],
    [{ threads: 1.5 }, 'threads is 1.5'],
    [{ repetitions: 10_001 }, 'repetitions is 10001'],
    [{ coldBytes: 2 ** 33 }, 'coldBytes is '],
    [{ seconds: Number.NaN }, 'seconds is NaN'],
    [{ what: 'linear', dtype: 'q9' as DType }, 'dtype is "q9"'],
    [{ what: 'linear', dtype: 'q4_k', columns: 128 }, 'columns is 128; expected a multiple of 256 for q4_k'],
    [{ what: 'attention', dtype: 'q4_k' }, 'dtype is "q4_k"; expected one of f32, f16, int8'],
    [{ what: 'attention' }, `columns is 512; expected ${ATTENTION_WIDTH}`],
    [{ what: 'read', rows: 1, columns: 511 }, 'at least 512 bytes'],
  ] as [Partial<MeasureRequest>, string][])('refuses %j', async (change, message) => {
    const refused = measureNatively({ ...small, what: 'rms_norm', ...change });
    await expect(refused).rejects.toMatchObject({ code: 'OPTION_INVALID', message: expect.stringContaining(message) });
  });

  it('refuses more memory than it may take', async () => {
    const request = { ...small, what: 'linear', rows: 2 ** 20, columns: 2 ** 17 } as const;
    await expect(measureNatively(request)).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
  });

  it('checks in native code too', async () => {
    const { addon } = loadNativeAddon();
    const request = { isa: addon.isa()!, dtype: 0, coldBytes: 0, budget: 0, oversubscribed: false };
    const start = (change: object, runs = 3, length = 3) =>
      addon.measure(
        { ...request, what: 'read', rows: 64, columns: 64, tokens: 1, threads: 1, ...change },
        { nanoseconds: new Float64Array(runs), measured: new Float64Array(length) },
      ).done;
    expect(await start({})).toBeUndefined();
    const wrong = [{ what: 'write' }, { rows: 0 }, { rows: 2 ** 21 }, { threads: 0 }, { threads: 257 }, { tokens: -1 }];
    for (const change of wrong) expect(await start(change)).toMatchObject({ code: 'INTERNAL' });
    for (const change of [{ dtype: 99 }, { dtype: 12, columns: 128 }]) {
      expect(await start({ what: 'linear', ...change })).toMatchObject({ code: 'INTERNAL' });
    }
    expect(await start({ what: 'attention', dtype: 3, columns: ATTENTION_WIDTH })).toMatchObject({ code: 'INTERNAL' });
    expect(await start({}, 0)).toMatchObject({ code: 'INTERNAL' });
    expect(await start({}, 3, 2)).toMatchObject({ code: 'INTERNAL' });
  });
});
