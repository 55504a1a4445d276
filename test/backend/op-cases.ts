import type { Batch } from '../../src/backend/backend.js';
import { type KvDType, kvDtypes } from '../../src/backend/kv-dtype.js';
import type { Activations } from '../../src/backend/op.js';
import { type DType, isQuantised, rowMultiple } from '../../src/tensor/dtype.js';
import type { PackedDType } from '../../src/tensor/packed.js';
import {
  blockTypes,
  filledMatrix,
  packedTypes,
  quantisedTypes,
  randomRow,
  saturatedMatrix,
} from '../tensor/random-blocks.js';
import { type BatchPart, batchOf, CaseBuilder, type OpCase, simpleBatch } from './case-builder.js';

/**
 * Small cases of every op, as data: the reference runs them against formulas, native backends against the reference.
 * Sizes are odd on purpose: no multiples of 8 or 16 wherever a type allows it.
 */
export function opCases(): OpCase[] {
  return [
    ...blockTypes.map(embedCase),
    addPositionsCase(),
    ...normCases(),
    ...blockTypes.flatMap(linearCases),
    ...transposedCases(),
    ...quantisedTypes.flatMap(extremeCases),
    ...ropeCases(),
    ...attentionCases(),
    ...elementwiseCases(),
    selectRowsCase(),
  ];
}

/** The same of matrices in the engine's own types. */
export function packedOpCases(): OpCase[] {
  return [
    ...packedTypes.map(embedCase),
    ...packedTypes.flatMap(linearCases),
    ...packedTypes.flatMap(everyRowCountCase),
    ...packedTypes.flatMap(extremeCases),
    ...packedTypes.flatMap(saturationCases),
  ];
}

/** Token rows of the steps of a case: one row, few, and more than any register tile. */
const rowCounts = [1, 3, 21];

function embedCase(dtype: DType, i: number): OpCase {
  const builder = new CaseBuilder(100 + i);
  const columns = rowMultiple(dtype) === 1 ? 37 : 3 * rowMultiple(dtype);
  const x = builder.plan.embed(builder.matrix(dtype, 21, columns));
  return builder.finish(`embed ${dtype}`, x, { steps: rowCounts.map(simpleBatch), tolerance: 0 });
}

function addPositionsCase(): OpCase {
  const builder = new CaseBuilder(150);
  const x = builder.input(21, 45);
  builder.plan.addPositions(x, builder.matrix('f16', 30, 45));
  const steps = [batchOf([{ start: 9, count: 21, blocks: [0, 1], tokenIds: Array.from({ length: 21 }, (_, i) => i) }])];
  return builder.finish('addPositions f16', x, { steps, tolerance: 0 });
}

function normCases(): OpCase[] {
  const steps = rowCounts.map(simpleBatch);
  const cases: OpCase[] = [];
  for (const [width, columns] of [
    [1, 1],
    [77, 77],
    [300, 300],
    [4 * 19, 19],
    [3 * 64, 64],
  ] as const) {
    const builder = new CaseBuilder(200 + width);
    const weight = builder.matrix(width === 77 ? 'bf16' : 'f32', 1, columns);
    const out = builder.plan.rmsNorm(builder.input(21, width), weight, 1e-5);
    cases.push(builder.finish(`rmsNorm ${width} in groups of ${columns}`, out, { steps, tolerance: 2e-6 }));
  }
  for (const withBias of [true, false]) {
    const builder = new CaseBuilder(withBias ? 210 : 211);
    const bias = withBias ? builder.normal(1, 93) : null;
    const out = builder.plan.layerNorm(builder.input(21, 93), builder.normal(1, 93), bias, 1e-5);
    const name = `layerNorm ${withBias ? 'with' : 'without'} bias`;
    cases.push(builder.finish(name, out, { steps, tolerance: 4e-6 }));
  }
  return cases;
}

/** A storage type with every treatment of activations it allows, narrow and wide. */
function linearCases(dtype: DType, i: number): OpCase[] {
  const cases: OpCase[] = [];
  const multiple = rowMultiple(dtype);
  const widths = multiple === 1 ? [1, 37, 1043] : [multiple, 3 * multiple, 1280];
  const treatments: Activations[] = isQuantised(dtype) ? ['f32', 'q8'] : ['f32'];
  for (const activations of treatments) {
    for (const columns of widths) {
      const builder = new CaseBuilder(300 + i);
      const x = builder.input(21, columns);
      const rows = columns === widths[1] ? 29 : 13;
      const bias = columns === widths[1] ? builder.normal(1, rows) : null;
      const out = builder.plan.linear(x, builder.matrix(dtype, rows, columns), bias, activations);
      const name = `linear ${dtype} ${activations} [${rows}, ${columns}]`;
      cases.push(builder.finish(name, out, { steps: rowCounts.map(simpleBatch), tolerance: 5e-6 }));
    }
  }
  return cases;
}

/** Matrices stored transposed, as slices of a wider one. */
function transposedCases(): OpCase[] {
  return (['f32', 'f16', 'bf16'] as const).map((dtype, i) => {
    const builder = new CaseBuilder(400 + i);
    const [rows, columns, transposedStride] = [23, 35, 69];
    const bytes = randomRow(dtype, columns * transposedStride, 400 + i);
    const x = builder.input(21, columns);
    const weight = builder.stored({ dtype, rows, columns, transposedStride, bytes });
    const out = builder.plan.linear(x, weight, builder.normal(1, rows), 'f32');
    return builder.finish(`linear ${dtype} transposed`, out, { steps: rowCounts.map(simpleBatch), tolerance: 5e-6 });
  });
}

/** Steps of 1 … 21 rows, so that register tiles end everywhere; the matrix ends within a panel. */
function everyRowCountCase(dtype: PackedDType, i: number): OpCase[] {
  return (['f32', 'q8'] as const).map((activations) => {
    const builder = new CaseBuilder(450 + i);
    const columns = 3 * rowMultiple(dtype);
    const out = builder.plan.linear(
      builder.input(21, columns),
      builder.matrix(dtype, 35, columns),
      builder.normal(1, 35),
      activations,
    );
    const steps = Array.from({ length: 21 }, (_, row) => simpleBatch(row + 1));
    return builder.finish(`linear ${dtype} ${activations} of 1 to 21 rows`, out, { steps, tolerance: 5e-6 });
  });
}

/**
 * All integers as large as they get, and activations of ±127 in the same places: 8-, 16- and 32-bit sums on the way to
 * the exact one are as close to overflowing as they can be.
 */
function saturationCases(dtype: PackedDType): OpCase[] {
  return [false, true].map((alternating) => {
    const builder = new CaseBuilder(550);
    const columns = 1280;
    const signs = [() => 127, () => -127, (k: number) => (k % 2 ? -127 : 127)];
    const values = Float32Array.from({ length: 21 * columns }, (_, i) =>
      signs[Math.floor(i / columns) % signs.length]!(i % columns),
    );
    const x = builder.plan.embed(builder.values(21, columns, values));
    const bytes = saturatedMatrix(dtype, 19, columns, alternating);
    const weight = builder.stored({ dtype, rows: 19, columns, transposedStride: 0, bytes });
    const out = builder.plan.linear(x, weight, null, 'q8');
    const name = `linear ${dtype} q8 saturated${alternating ? ', alternating' : ''}`;
    // Sums are beyond 2^24, so float32 rounds them.
    return builder.finish(name, out, { steps: rowCounts.map(simpleBatch), tolerance: 5e-7 });
  });
}

/** Largest codes against largest activations, and rows of x that are zero, tiny, infinite or not a number. */
function extremeCases(dtype: DType, i: number): OpCase[] {
  return [0x00, 0x7f, 0x80, 0xff].map((fill) => {
    const builder = new CaseBuilder(500 + i);
    const columns = 2 * rowMultiple(dtype);
    const x = builder.plan.embed(builder.values(10, columns, extremeRows(columns)));
    const bytes = filledMatrix(dtype, 9, columns, fill, 500 + i);
    const weight = builder.stored({ dtype, rows: 9, columns, transposedStride: 0, bytes });
    const out = builder.plan.linear(x, weight, null, 'q8');
    const name = `linear ${dtype} q8 extremes 0x${fill.toString(16)}`;
    // One row per step: rows differ in magnitude by more than a tolerance relative to the largest can judge.
    const steps = Array.from({ length: 10 }, (_, row) =>
      batchOf([{ start: 0, count: 1, blocks: [0], tokenIds: [row] }]),
    );
    return builder.finish(name, out, { steps, tolerance: 5e-6 });
  });
}

function extremeRows(columns: number): Float32Array {
  const rows: ((i: number) => number)[] = [
    () => 3,
    () => -3,
    (i) => (i % 2 ? 1 : -1),
    () => 0,
    () => 1e-38, // below the smallest amax: counts as zero
    (i) => (i + 1) * 2 ** -99,
    (i) => (i === 5 ? Number.NaN : 1),
    (i) => (i === columns - 3 ? Number.NEGATIVE_INFINITY : 1),
    (i) => (i === 0 ? 127 : (i % 8) + 0.5), // ties: scale 1, codes round to even
    (i) => (i % 3) * 1e30,
  ];
  return Float32Array.from({ length: rows.length * columns }, (_, i) => rows[Math.floor(i / columns)]!(i % columns));
}

function ropeCases(): OpCase[] {
  const tokenIds = (count: number) => Array.from({ length: count }, (_, i) => i);
  const blocks = Array.from({ length: 64 }, (_, i) => i);
  const steps = [
    simpleBatch(1),
    batchOf([{ start: 0, count: 7, blocks }]),
    batchOf([
      { start: 1000, count: 5, blocks, tokenIds: tokenIds(5) },
      { start: 313, count: 6, blocks, tokenIds: tokenIds(6) },
    ]),
  ];
  const variants = [
    { name: 'halves', headDim: 16, numPairs: 8, interleaved: false, magnitude: 1 },
    { name: 'interleaved', headDim: 24, numPairs: 12, interleaved: true, magnitude: 1 },
    { name: 'halves of a part', headDim: 20, numPairs: 6, interleaved: false, magnitude: 1 },
    { name: 'interleaved in a part, scaled', headDim: 22, numPairs: 5, interleaved: true, magnitude: 1.3 },
  ];
  return variants.map(({ name, headDim, numPairs, interleaved, magnitude }, i) => {
    const builder = new CaseBuilder(600 + i);
    const inverseFrequencies = Array.from({ length: numPairs }, (_, pair) => 10000 ** (-pair / numPairs));
    const table = builder.plan.ropeTable({ inverseFrequencies, magnitude });
    const x = builder.input(21, 3 * headDim);
    builder.plan.rope(x, headDim, table, interleaved);
    return builder.finish(`rope ${name}`, x, { steps, tolerance: 1e-6 });
  });
}

interface AttentionShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly window?: number;
}

function attentionCases(): OpCase[] {
  const grouped = { numHeads: 6, numKvHeads: 2, headDim: 20 };
  const cases = [
    attentionCase('as many KV heads', 700, { numHeads: 3, numKvHeads: 3, headDim: 9 }, 'f32', raggedSteps()),
    attentionCase('grouped', 701, grouped, 'f32', raggedSteps()),
    attentionCase('grouped f16', 702, grouped, 'f16', raggedSteps()),
    attentionCase('grouped int8', 708, grouped, 'int8', raggedSteps()),
    attentionCase('one KV head', 703, { numHeads: 8, numKvHeads: 1, headDim: 64 }, 'f32', raggedSteps()),
    attentionCase('head of 128 f16', 704, { numHeads: 4, numKvHeads: 2, headDim: 128 }, 'f16', raggedSteps()),
    attentionCase('head of 128 int8', 709, { numHeads: 7, numKvHeads: 1, headDim: 128 }, 'int8', raggedSteps()),
    attentionCase('window 1', 705, { ...grouped, window: 1 }, 'f32', raggedSteps()),
    attentionCase('window 7', 706, { ...grouped, window: 7 }, 'f32', raggedSteps()),
    attentionCase('slots of −1', 707, grouped, 'f32', skippedSlotSteps()),
  ];
  const long = { numHeads: 4, numKvHeads: 2, headDim: 16 };
  for (const kvDtype of kvDtypes) {
    cases.push(attentionCase(`three chunks ${kvDtype}`, 710, long, kvDtype, longSteps()));
    cases.push(
      attentionCase(`three chunks, window 300 ${kvDtype}`, 711, { ...long, window: 300 }, kvDtype, longSteps()),
    );
  }
  return cases;
}

function attentionCase(
  name: string,
  seed: number,
  shape: AttentionShape,
  kvDtype: KvDType,
  steps: readonly Batch[],
): OpCase {
  const { numHeads, numKvHeads, headDim, window = 0 } = shape;
  const builder = new CaseBuilder(seed);
  const q = builder.input(MAX_POSITION, numHeads * headDim);
  const k = builder.input(MAX_POSITION, numKvHeads * headDim);
  const v = builder.input(MAX_POSITION, numKvHeads * headDim);
  const layer = builder.plan.kvLayer({ numKvHeads, headDim });
  builder.plan.writeKv(k, v, layer);
  const out = builder.plan.attention(q, layer, { scale: 1 / Math.sqrt(headDim), window });
  const limits = { kvDtype, maxTokens: MAX_POSITION, maxRows: MAX_POSITION };
  return builder.finish(`attention ${name}`, out, { steps, tolerance: 1e-5, limits });
}

const MAX_POSITION = 700;

/** Three sequences in scattered blocks: one starts, one decodes, one goes on with a chunk across a block border. */
function raggedSteps(): Batch[] {
  const a = [9, 3, 12];
  const b = [40, 1, 63];
  const c = [7, 30, 2];
  const shifted = (part: Omit<BatchPart, 'tokenIds'>, by: number): BatchPart => ({
    ...part,
    tokenIds: Array.from({ length: part.count }, (_, i) => part.start + i + by),
  });
  return [
    batchOf([shifted({ start: 0, count: 37, blocks: b }, 100), shifted({ start: 0, count: 13, blocks: c }, 200)]),
    batchOf([
      shifted({ start: 0, count: 41, blocks: a }, 0),
      shifted({ start: 37, count: 1, blocks: b }, 100),
      shifted({ start: 13, count: 25, blocks: c }, 200),
    ]),
    batchOf([
      shifted({ start: 41, count: 1, blocks: a }, 0),
      shifted({ start: 38, count: 1, blocks: b }, 100),
      shifted({ start: 38, count: 1, blocks: c }, 200),
    ]),
  ];
}

/** A context of several attention chunks: all at once, then single tokens. */
function longSteps(): Batch[] {
  const blocks = Array.from({ length: 44 }, (_, i) => (i * 37 + 5) % 64);
  return [
    batchOf([{ start: 0, count: 650, blocks }]),
    batchOf([{ start: 650, count: 1, blocks }]),
    batchOf([{ start: 651, count: 9, blocks }]),
  ];
}

/** The second step's tokens see what the first stored: their own keys are not written. */
function skippedSlotSteps(): Batch[] {
  const blocks = [5, 6];
  const second = batchOf([{ start: 3, count: 4, blocks, tokenIds: [600, 601, 602, 603] }]);
  return [batchOf([{ start: 0, count: 7, blocks }]), { ...second, slotMapping: Int32Array.of(-1, 84, -1, -1) }];
}

function elementwiseCases(): OpCase[] {
  const steps = rowCounts.map(simpleBatch);
  const silu = new CaseBuilder(800);
  const gelus = [true, false].map((approximate) => {
    const builder = new CaseBuilder(801);
    // −10.2 … 10.2, large and small ones in every row.
    const values = Float32Array.from({ length: 21 * 39 }, (_, i) => (((i * 100) % (21 * 39)) - 409) / 40);
    const out = builder.plan.gelu(builder.plan.embed(builder.values(21, 39, values)), approximate);
    return builder.finish(`gelu ${approximate ? 'tanh' : 'erf'}`, out, { steps, tolerance: 1e-6 });
  });
  const sum = new CaseBuilder(803);
  const x = sum.input(21, 39);
  sum.plan.add(x, sum.input(21, 39));
  const product = silu.plan.siluMul(silu.input(21, 39), silu.input(21, 39));
  return [
    silu.finish('siluMul', product, { steps, tolerance: 1e-6 }),
    ...gelus,
    sum.finish('add', x, { steps, tolerance: 0 }),
  ];
}

function selectRowsCase(): OpCase {
  const builder = new CaseBuilder(900);
  const out = builder.plan.selectRows(builder.input(30, 33));
  const steps = [
    batchOf([
      { start: 0, count: 9, blocks: [0], wanted: [0, 8] },
      { start: 0, count: 5, blocks: [1], wanted: [] },
      { start: 3, count: 4, blocks: [2], wanted: [1, 2] },
    ]),
    batchOf([{ start: 0, count: 3, blocks: [0], wanted: [] }]),
  ];
  return builder.finish('selectRows', out, { steps, tolerance: 0 });
}
