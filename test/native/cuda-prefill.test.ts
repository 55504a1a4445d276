import { beforeAll, describe, expect, it } from 'vitest';
import type { Batch, Session } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { describeLaunches, type NativeCudaOptions, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { type BatchPart, batchOf, type OpCase, writeWeights } from '../backend/case-builder.js';
import { expectClose } from '../backend/compare.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyLlama } from '../backend/tiny-llama.js';
import { seededRandom } from '../tensor/random.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const BLOCK_SIZE = 4;
const BLOCKS_PER_SEQUENCE = 28;
const LENGTH = 100;

const folder = temporaryFolder();
const models = [
  tinyLlama('f16, float16 cache', 'f16', 'f32', 'f16'),
  tinyLlama('q8_0, int8 cache', 'q8_0', 'f32', 'int8'),
].map((opCase) => ({
  ...opCase,
  limits: { ...opCase.limits, maxTokens: 128, maxRows: 128, contextSize: 112, numBlocks: 64 },
}));

const random = seededRandom(3);
const tokens = [0, 1].map(() => Array.from({ length: LENGTH }, () => Math.floor(random() * 117)));

/** Tokens start … end − 1 of a sequence, whose blocks lie scattered among those of the other. */
function part(sequence: number, start: number, end: number): BatchPart {
  return {
    start,
    count: end - start,
    blocks: Array.from({ length: BLOCKS_PER_SEQUENCE }, (_, b) => 2 * ((b * 11) % BLOCKS_PER_SEQUENCE) + sequence),
    tokenIds: tokens[sequence]!.slice(start, end),
    ...(sequence > 0 && { wanted: [] }),
  };
}
const steps = (...batches: readonly (readonly BatchPart[])[]): Batch[] =>
  batches.map((parts) => batchOf(parts, BLOCK_SIZE));

/** Logits of all steps, one after another. */
async function logitsOf(session: Session, batches: readonly Batch[]): Promise<Float32Array> {
  const logits: number[] = [];
  for (const batch of batches) logits.push(...(await session.step(batch, { logits: true })).logits!);
  await session.dispose();
  return Float32Array.from(logits);
}

/** Root mean square of the differences over that of what is expected. */
function relativeError(actual: Float32Array, expected: Float32Array): number {
  expect(actual).toHaveLength(expected.length);
  return Math.hypot(...actual.map((value, i) => value - expected[i]!)) / Math.hypot(...expected);
}

describe.skipIf(noEmulatedCuda)(`prompts on an emulated GPU${noEmulatedCuda ?? ''}`, { timeout: 120_000 }, () => {
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);

  const cuda = (opCase: OpCase, options: NativeCudaOptions = {}) =>
    nativeCudaBackend({ library, threads: 2, ...options }).load(
      opCase.plan,
      writeWeights(opCase, folder),
      opCase.limits,
    );
  const cpu = (opCase: OpCase) =>
    nativeCpuBackend({ threads: 1 }).load(opCase.plan, writeWeights(opCase, folder), opCase.limits);

  describe.each(models)('a tiny Llama, $name', (opCase) => {
    it.each([
      ['16 tokens', steps([part(0, 0, 16)])],
      ['100 tokens', steps([part(0, 0, LENGTH)])],
      ['in chunks of all sizes', steps([part(0, 0, 37)], [part(0, 37, 40)], [part(0, 40, 96)], [part(0, 96, LENGTH)])],
      ['beside others', steps([part(1, 0, 20), part(0, 0, 18)], [part(0, 18, 25), part(1, 20, 60)])],
    ] as const)('has nearly the logits of the CPU: %s', async (_, batches) => {
      const expected = await logitsOf(await cpu(opCase), batches);
      // Activations of 11 bits; codes of 8 bits become their neighbours here and there.
      const error = relativeError(await logitsOf(await cuda(opCase), batches), expected);
      expect(error).toBeLessThan(opCase.limits.kvDtype === 'f16' ? 2e-3 : 5e-2);
      expect(error).toBeGreaterThan(1e-5);
    });
  });

  it('has the same bits beside other sequences, long and short, padded, replayed or not', async () => {
    const [opCase] = models;
    const alone = steps([part(0, 0, 16)], [part(0, 16, 17)], [part(0, 17, 33)]);
    const beside = steps(
      [part(0, 0, 16), part(1, 0, 16)],
      [part(1, 16, 32), part(0, 16, 17)],
      [part(0, 17, 33), part(1, 32, 35)],
    );
    const expected = await logitsOf(await cuda(opCase!, { graphs: false }), alone);
    expectClose(await logitsOf(await cuda(opCase!, { graphs: false }), beside), expected, 0, 'beside another');
    // The third round replays graphs.
    for (const batches of [alone, beside]) {
      const thrice = await logitsOf(await cuda(opCase!), [...batches, ...batches, ...batches]);
      for (let i = 0; i < 3; i++) {
        expectClose(thrice.slice(i * expected.length, (i + 1) * expected.length), expected, 0, `round ${i}`);
      }
    }
  });

  it('uses the matrix unit where a sequence has 16 tokens and the cache is not float32', () => {
    const launches = (opCase: OpCase, tokens: number, rows: number, precise = false) => {
      const size = { tokens, rows, contextLength: 60 };
      const text = describeLaunches(opCase.plan, writeWeights(opCase, folder), opCase.limits, size, {
        library,
        precise,
      });
      return [...new Set(text.match(/attention\w*(?= \d+x)/g))].join();
    };
    for (const opCase of models) {
      expect(launches(opCase, 15, 1)).toBe('attention');
      expect(launches(opCase, 16, 1)).toBe('attentionMany');
      expect(launches(opCase, 31, 2)).toBe('attentionMany,attention');
      expect(launches(opCase, 64, 8)).toBe('attention');
      expect(launches(opCase, 128, 8)).toBe('attentionMany');
      expect(launches(opCase, 128, 8, true)).toBe('attention');
    }
    expect(launches(tinyLlama('f32', 'f32', 'f32', 'f32'), 64, 1)).toBe('attention');
  });
});
