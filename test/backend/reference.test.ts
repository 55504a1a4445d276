import { utimesSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/backend/backend.js';
import type { Buffer } from '../../src/backend/op.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { EngineError } from '../../src/base/errors.js';
import { batchOf, CaseBuilder, defaultLimits, simpleBatch, writeWeights } from './case-builder.js';
import { samplingRecords } from './sampling-records.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
let caseNumber = 0;

/** Runs a plan over rows of hand-written tables; returns the result of the last step, rounded to 6 digits. */
function run(build: (builder: CaseBuilder) => Buffer, ...steps: readonly Batch[]): number[] {
  const builder = new CaseBuilder(1);
  const out = build(builder);
  const opCase = builder.finish(`case ${caseNumber++}`, out, { steps, tolerance: 0 });
  const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits);
  for (const step of steps) interpreter.step(step);
  return Array.from(interpreter.read(out), (value) => Number(value.toPrecision(6)));
}

/** A buffer whose row t is rows[tokenIds[t]]. */
function input(builder: CaseBuilder, ...rows: readonly (readonly number[])[]): Buffer {
  return builder.plan.embed(builder.values(rows.length, rows[0]!.length, Float32Array.from(rows.flat())));
}

const vector = (builder: CaseBuilder, ...values: number[]) =>
  builder.values(1, values.length, Float32Array.from(values));

describe('ops, by hand', () => {
  it('embed picks rows by token id', () => {
    const batch = { ...simpleBatch(2), tokenIds: Int32Array.of(2, 0) };
    expect(run((b) => input(b, [1, 2], [3, 4], [5, 6]), batch)).toEqual([5, 6, 1, 2]);
  });

  it('addPositions adds rows by position', () => {
    const build = (b: CaseBuilder): Buffer => {
      const x = input(b, [1, 2], [3, 4]);
      b.plan.addPositions(x, b.values(3, 2, Float32Array.of(0, 0, 10, 20, 30, 40)));
      return x;
    };
    expect(run(build, batchOf([{ start: 1, count: 2, blocks: [0], tokenIds: [0, 1] }]))).toEqual([11, 22, 33, 44]);
  });

  it('rmsNorm divides by the root mean square, per group', () => {
    const build = (b: CaseBuilder): Buffer => b.plan.rmsNorm(input(b, [3, 4, 0, 10]), vector(b, 1, 2), 0);
    const root = Math.sqrt(12.5);
    const expected = [3 / root, 8 / root, 0, (2 * 10) / Math.sqrt(50)];
    expect(run(build, simpleBatch(1))).toEqual(expected.map((value) => Number(Math.fround(value).toPrecision(6))));
    expect(run((b) => b.plan.rmsNorm(input(b, [0, 0]), vector(b, 1, 1), 0.25), simpleBatch(1))).toEqual([0, 0]);
  });

  it('layerNorm subtracts the mean and divides by the deviation of the row', () => {
    const build = (b: CaseBuilder): Buffer =>
      b.plan.layerNorm(input(b, [1, 3], [5, 5]), vector(b, 1, 2), vector(b, 10, 20), 0.25);
    const factor = 1 / Math.sqrt(1.25);
    const expected = [10 - factor, 20 + 2 * factor, 10, 20];
    expect(run(build, simpleBatch(2))).toEqual(expected.map((value) => Number(value.toPrecision(6))));
  });

  it('linear multiplies by the transposed weight and adds the bias', () => {
    const build = (b: CaseBuilder): Buffer =>
      b.plan.linear(
        input(b, [1, 2], [3, -1]),
        b.values(3, 2, Float32Array.of(1, 0, 0, 1, 5, 7)),
        vector(b, 0.5, 0, -1),
        'f32',
      );
    expect(run(build, simpleBatch(2))).toEqual([1.5, 2, 18, 3.5, -1, 7]);
  });

  it('rope turns pairs by position · frequency', () => {
    const rotate =
      (interleaved: boolean, magnitude = 1) =>
      (b: CaseBuilder) => {
        const x = input(b, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]);
        b.plan.rope(x, 5, b.plan.ropeTable({ inverseFrequencies: [Math.PI / 2, Math.PI], magnitude }), interleaved);
        return x;
      };
    // At position 0 nothing turns; at position 1 the first pair by 90°, the second by 180°.
    expect(run(rotate(true), simpleBatch(2))).toEqual([1, 2, 3, 4, 5, -2, 1, -3, -4, 5]);
    expect(run(rotate(false), simpleBatch(2))).toEqual([1, 2, 3, 4, 5, -3, -2, 1, -4, 5]);
    expect(run(rotate(false, 2), simpleBatch(2))).toEqual([2, 4, 6, 8, 5, -6, -4, 2, -8, 5]);
  });

  it('siluMul, gelu, add', () => {
    const two = (b: CaseBuilder): [Buffer, Buffer] => [input(b, [0, 1, -2]), input(b, [7, 2, 3])];
    const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
    const six = (values: number[]): number[] => values.map((value) => Number(Math.fround(value).toPrecision(6)));
    expect(run((b) => b.plan.siluMul(...two(b)), simpleBatch(1))).toEqual(six([0, 2 * sigmoid(1), -6 * sigmoid(-2)]));
    // Φ(1) = 0.841344746 and Φ(−10) = 7.6198530242e−24, from tables; tanh in double precision.
    expect(run((b) => b.plan.gelu(input(b, [0, 1, -10]), false), simpleBatch(1))).toEqual([0, 0.841345, -7.61985e-23]);
    expect(run((b) => b.plan.gelu(input(b, [0, 1, -3]), true), simpleBatch(1))).toEqual([0, 0.841192, -0.00363739]);
    const sum = (b: CaseBuilder): Buffer => {
      const [x, y] = two(b);
      b.plan.add(x, y);
      return x;
    };
    expect(run(sum, simpleBatch(1))).toEqual([7, 3, 1]);
  });

  it('selectRows keeps the rows that are wanted', () => {
    const batch = batchOf([{ start: 0, count: 3, blocks: [0], wanted: [0, 2] }]);
    expect(run((b) => b.plan.selectRows(input(b, [1], [2], [3])), batch)).toEqual([1, 3]);
  });
});

describe('attention, by hand', () => {
  /** One head of one value: scores are q · k. Rows are [q, k, v]. */
  const attend =
    (window: number, ...rows: readonly (readonly [number, number, number])[]) =>
    (b: CaseBuilder): Buffer => {
      const [q, k, v] = [0, 1, 2].map((i) => input(b, ...rows.map((row) => [row[i]!]))) as [Buffer, Buffer, Buffer];
      const layer = b.plan.kvLayer({ numKvHeads: 1, headDim: 1 });
      b.plan.writeKv(k, v, layer);
      return b.plan.attention(q, layer, { scale: Math.LN2, window });
    };

  it('weighs what a query may see: itself and the past', () => {
    // Weights are powers of two: 2^(q · k).
    const build = attend(0, [1, 0, 8], [1, 1, 2], [0, 5, 5]);
    expect(run(build, simpleBatch(3))).toEqual([8, (8 + 2 * 2) / 3, 5]);
  });

  it('with a window forgets what lies behind it', () => {
    const build = attend(2, [0, 0, 1], [0, 0, 3], [0, 0, 9], [0, 0, 1]);
    expect(run(build, simpleBatch(4))).toEqual([1, 2, 6, 5]);
  });

  it('finds keys of earlier steps through the block table, and keeps sequences apart', () => {
    const build = attend(0, [0, 0, 4], [0, 0, 8], [0, 0, 100]);
    const blocks = [33];
    const result = run(
      build,
      batchOf([
        { start: 0, count: 1, blocks, tokenIds: [0] },
        { start: 0, count: 1, blocks: [2], tokenIds: [2] },
      ]),
      batchOf([{ start: 1, count: 1, blocks, tokenIds: [1] }]),
    );
    expect(result).toEqual([6]);
  });

  it('gives query head h the KV head ⌊h · numKvHeads / numHeads⌋', () => {
    const build = (b: CaseBuilder): Buffer => {
      const [q, k, v] = [input(b, [1, 1, 1, 1]), input(b, [1, 1]), input(b, [3, 7])];
      const layer = b.plan.kvLayer({ numKvHeads: 2, headDim: 1 });
      b.plan.writeKv(k, v, layer);
      return b.plan.attention(q, layer, { scale: 1, window: 0 });
    };
    expect(run(build, simpleBatch(1))).toEqual([3, 3, 7, 7]);
  });

  it('rounds keys and values to float16 in a float16 cache', () => {
    const builder = new CaseBuilder(2);
    const out = attend(0, [1, 1, 1 + 2 ** -12])(builder);
    const options = { steps: [], tolerance: 0, limits: { kvDtype: 'f16' as const } };
    const opCase = builder.finish('f16 cache', out, options);
    const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits);
    interpreter.step(simpleBatch(1));
    expect([...interpreter.read(out)]).toEqual([1]);
  });
});

describe('loading', () => {
  const prepared = (name: string) => {
    const builder = new CaseBuilder(3);
    const opCase = builder.finish(name, input(builder, [1, 2, 3]), { steps: [], tolerance: 0 });
    const weights = writeWeights(opCase, folder);
    return { plan: opCase.plan, weights, file: [...weights.files.keys()][0]! };
  };
  const code = (load: () => unknown): string => {
    try {
      load();
    } catch (error) {
      if (error instanceof EngineError) return error.code;
      throw error;
    }
    return 'nothing thrown';
  };

  it('refuses a file that has changed since its header was read', () => {
    const { plan, weights, file } = prepared('changed');
    writeFileSync(file, new Uint8Array(100));
    expect(code(() => new ReferenceInterpreter(plan, weights, defaultLimits))).toBe('FILE_CHANGED');
    const touched = prepared('touched');
    utimesSync(touched.file, 1, 1);
    expect(code(() => new ReferenceInterpreter(touched.plan, touched.weights, defaultLimits))).toBe('FILE_CHANGED');
  });

  it('says which file is missing', () => {
    const { plan, weights, file } = prepared('missing');
    const moved = { ...weights, entries: weights.entries.map((entry) => ({ ...entry, file: `${file}-elsewhere` })) };
    expect(code(() => new ReferenceInterpreter(plan, moved, defaultLimits))).toBe('FILE_NOT_FOUND');
  });

  it('reports a KV cache that does not fit into memory', () => {
    const builder = new CaseBuilder(4);
    const x = input(builder, [1]);
    builder.plan.writeKv(x, x, builder.plan.kvLayer({ numKvHeads: 1, headDim: 2 ** 20 }));
    const opCase = builder.finish('huge', x, { steps: [], tolerance: 0 });
    const limits = { ...defaultLimits, numBlocks: 2 ** 24 };
    const weights = writeWeights(opCase, folder);
    expect(code(() => new ReferenceInterpreter(opCase.plan, weights, limits))).toBe('OUT_OF_MEMORY');
  });
});

describe('steps', () => {
  it('sample from the rows they were asked for, and copy logits out only on request', () => {
    const builder = new CaseBuilder(5);
    const opCase = builder.finish('sampling', input(builder, [1, 9, 3], [4, 2, 8]), { steps: [], tolerance: 0 });
    const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits);
    const batch = batchOf([{ start: 0, count: 2, blocks: [0] }]);
    const greedy = { ...batch, sampling: samplingRecords({ row: 1, temperature: 0 }) };
    expect([...interpreter.step(greedy).tokens]).toEqual([2]);
    expect(interpreter.step(greedy).logits).toBeUndefined();
    expect([...interpreter.step(batch, { logits: true }).logits!]).toEqual([1, 9, 3, 4, 2, 8]);
    expect([...interpreter.step(batch).tokens]).toEqual([-1, -1]);
  });
});
