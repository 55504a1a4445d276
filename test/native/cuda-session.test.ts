import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { describeLaunches, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { opNames } from '../../src/backend/op.js';
import { batchOf, type OpCase, writeWeights } from '../backend/case-builder.js';
import { expectClose } from '../backend/compare.js';
import { failure } from '../backend/failure.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyDecoder } from '../backend/tiny-decoder.js';
import { schedules } from '../backend/tiny-llama.js';
import { checkCudaSessions, cudaLoader, loadCpu, logitsOf, model, models } from './cuda-session-checks.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();
const packed = models[4]!;

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

  const cuda = cudaLoader(() => library, folder);
  checkCudaSessions(() => library, folder);

  it.each([models[1]!, packed])('has the same bits of many rows with each kind of product: $name', async (opCase) => {
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
    expectClose(logits, await logitsOf(await loadCpu(opCase, folder), steps), 3e-2, 'logits');
    process.env.ENGINE_EMULATED_CAPABILITY = '80';
    expectClose(await logitsOf(await cuda(opCase), steps), logits, 0, 'without warpgroups');
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

  it('refuses to load without a GPU, and with other libraries', () => {
    process.env.ENGINE_EMULATED_NONE = '1';
    expect(() => nativeCudaBackend({ library })).toThrow(/no GPU that CUDA can use/);
    expect(() => nativeCudaBackend({ library: join(folder, 'nothing.so') })).toThrow(
      /there is no .*nothing.so; install/,
    );
    expect(() => nativeCudaBackend({ library: '/proc/self/exe' })).toThrow(/native-cuda is not available/);
  });

  describe('the launch plan', () => {
    const launches = (tokens: number, rows: number, fused = true, opCase: OpCase = model) =>
      describeLaunches(
        opCase.plan,
        writeWeights(opCase, folder),
        opCase.limits,
        { tokens, rows, contextLength: 10 },
        { library, fused },
      )
        .trimEnd()
        .split('\n');

    it('has other linears where warpgroups multiply, and no copy of halved weights', () => {
      const limits = { ...model.limits, maxTokens: 512 };
      const kernels = (capability: string) => {
        process.env.ENGINE_EMULATED_CAPABILITY = capability;
        const step = { tokens: 300, rows: 40, contextLength: 10 };
        const text = describeLaunches(packed.plan, writeWeights(packed, folder), limits, step, { library });
        return new Set([...text.matchAll(/: (linear\w*|halve)/g)].map(([, kernel]) => kernel));
      };
      expect(kernels('90')).toEqual(new Set(['linearWarpgroup']));
      expect(kernels('80')).toEqual(new Set(['halve', 'linearMany', 'linearBatch']));
    });

    it('without fusion does every op once, in order, within the limits of the device', () => {
      for (const [tokens, rows] of [
        [1, 1],
        [3, 2],
        [29, 29],
        [64, 1],
      ] as const) {
        const parsed = launches(tokens, rows, false).map((line) => {
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

    it('of one token has 5 launches a layer', () => {
      const llama = tinyDecoder('Llama', { dtype: 'q4_0', headDim: 32, limits: { kvDtype: 'f16' } });
      expect(launches(1, 1, true, llama).join('\n')).toMatchInlineSnapshot(`
        "0 embed: embed 1x1 blocks of 256, 0 bytes
        7 writeKv: linear (prepare, rmsNorm, 3 linears, heads) 2x1 blocks of 256, 78608 bytes
        8 attention: attention 2x1 blocks of 256, 28032 bytes
        10 add: linear (prepare, add) 1x1 blocks of 256, 78608 bytes
        14 siluMul: linear (prepare, rmsNorm, 2 linears, siluMul) 3x1 blocks of 256, 78608 bytes
        16 add: linear (prepare, add) 1x1 blocks of 256, 78608 bytes
        23 writeKv: linear (prepare, rmsNorm, 3 linears, heads) 2x1 blocks of 256, 78608 bytes
        24 attention: attention 2x1 blocks of 256, 28032 bytes
        25 selectRows: selectRows 1x1 blocks of 256, 0 bytes
        26 selectRows: selectRows 1x1 blocks of 256, 0 bytes
        28 add: linear (prepare, add) 1x1 blocks of 256, 78608 bytes
        32 siluMul: linear (prepare, rmsNorm, 2 linears, siluMul) 3x1 blocks of 256, 78608 bytes
        34 add: linear (prepare, add) 1x1 blocks of 256, 78608 bytes
        35 rmsNorm: rmsNorm 1x1 blocks of 256, 0 bytes
        36 linear: linear (prepare, highest) 1x1 blocks of 256, 78672 bytes
        37 sampling: sample 1x1 blocks of 1024, 0 bytes"
      `);
    });

    it('without fusion is this', () => {
      expect(launches(1, 1, false).slice(0, 20).join('\n')).toMatchInlineSnapshot(`
        "0 embed: embed 1x1 blocks of 256, 0 bytes
        1 rmsNorm: rmsNorm 1x1 blocks of 256, 0 bytes
        2 linear: prepare 8x1 blocks of 256, 0 bytes
        2 linear: linear 2x1 blocks of 256, 86336 bytes
        3 linear: linear 1x1 blocks of 256, 86336 bytes
        4 linear: linear 1x1 blocks of 256, 86336 bytes
        5 rope: rope 1x1 blocks of 256, 0 bytes
        6 rope: rope 1x1 blocks of 256, 0 bytes
        7 writeKv: writeKv 1x1 blocks of 128, 0 bytes
        8 attention: attention 2x1 blocks of 256, 28032 bytes
        9 linear: prepare 8x1 blocks of 256, 0 bytes
        9 linear: linear 2x1 blocks of 256, 86336 bytes
        10 add: add 1x1 blocks of 256, 0 bytes
        11 rmsNorm: rmsNorm 1x1 blocks of 256, 0 bytes
        12 linear: prepare 8x1 blocks of 256, 0 bytes
        12 linear: linear 5x1 blocks of 256, 86336 bytes
        13 linear: linear 5x1 blocks of 256, 86336 bytes
        14 siluMul: siluMul 1x1 blocks of 256, 0 bytes
        15 linear: prepare 8x1 blocks of 256, 0 bytes
        15 linear: linear 2x1 blocks of 256, 86336 bytes"
      `);
    });
  });
});
