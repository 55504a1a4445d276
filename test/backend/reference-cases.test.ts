import { describe, expect, it } from 'vitest';
import { roundToEven } from '../../src/backend/float-math.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { type DType, dequantiseRows, dtypes, forEachBlock } from '../../src/tensor/dtype.js';
import { createIntegerBlock, SCALE_GROUP } from '../../src/tensor/integer-block.js';
import { type OpCase, type StoredWeight, writeWeights } from './case-builder.js';
import { expectClose } from './compare.js';
import { opCases, packedOpCases } from './op-cases.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

/** Outputs of every step, in order. */
function run(opCase: OpCase, options: { decodeLimit?: number } = {}): Float32Array[] {
  const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits, options);
  return opCase.steps.flatMap((batch) => {
    interpreter.step(batch);
    return opCase.outputs.map((buffer) => interpreter.read(buffer));
  });
}

const cases = [...opCases(), ...packedOpCases()];

it('op cases have distinct names', () => {
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
});

describe.each(cases)('$name', (opCase) => {
  it('gives the same bits from decoded and from stored weights, finite unless x is not', () => {
    const decoded = run(opCase);
    run(opCase, { decodeLimit: 0 }).forEach((output, i) => {
      expectClose(output, decoded[i]!, 0, `output ${i}`);
    });
    if (!opCase.name.includes('extremes')) {
      for (const output of decoded) expect(output.every((value) => Number.isFinite(value))).toBe(true);
    }
  });
});

const isInteger = ({ name }: OpCase): boolean => name.includes(' q8 ');

/** Rows of x and the linear of a case `embed, linear`, with its result per step. */
function linearOf(opCase: OpCase): { x: Float32Array; weight: StoredWeight; bias: Float32Array | null } {
  const [table, ...rest] = opCase.weights;
  const floats = ({ bytes }: StoredWeight): Float32Array =>
    new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const bias = rest.length > 1 ? floats(rest.find((weight) => weight.rows === 1)!) : null;
  return { x: floats(table!), weight: rest.find((weight) => weight.rows > 1)!, bias };
}

describe.each(cases.filter(({ name }) => name.startsWith('linear')))('$name', (opCase) => {
  const { x, weight, bias } = linearOf(opCase);
  const { rows, columns, dtype } = weight;
  const formula = isInteger(opCase) ? integerDot : floatDot;

  it('is the sum of its definition', () => {
    const outputs = run(opCase);
    opCase.steps.forEach(({ tokenIds }, step) => {
      const expected = Float32Array.from({ length: tokenIds.length * rows }, (_, i) => {
        const row = x.subarray(tokenIds[Math.floor(i / rows)]! * columns).subarray(0, columns);
        return formula(weight, i % rows, row, dtype) + (bias ? bias[i % rows]! : 0);
      });
      expectClose(outputs[2 * step]!, expected, isInteger(opCase) ? 0 : 1e-6, `step ${step}`);
    });
  });
});

function floatDot(weight: StoredWeight, n: number, x: Float32Array, dtype: DType): number {
  const { columns, bytes, transposedStride } = weight;
  const values = new Float32Array(columns);
  if (transposedStride > 0) {
    for (let c = 0; c < columns; c++) dequantiseRows(dtype, bytes, 1, c * transposedStride + n, 1, values.subarray(c));
  } else {
    dequantiseRows(dtype, bytes, columns, n, 1, values);
  }
  return values.reduce((sum, value, k) => sum + value * x[k]!, 0);
}

/** Straight from the text: codes of each chunk, exact sums, blocks in ascending order. */
function integerDot(weight: StoredWeight, n: number, x: Float32Array, dtype: DType): number {
  const { blockSize } = dtypes[dtype];
  const block = createIntegerBlock(blockSize);
  let acc = 0;
  forEachBlock(dtype, weight.bytes, weight.columns, n, 1, block, (b) => {
    const chunk = x.slice(b * blockSize, (b + 1) * blockSize);
    const amax = Math.max(...chunk.map(Math.abs));
    const ignored = !(amax >= 2 ** -100) || amax === Infinity;
    const scale = Number.isFinite(amax) ? (ignored ? 0 : Math.fround(amax / 127)) : NaN;
    const inverse = Math.fround(127 / amax);
    const code = (value: number): number => (ignored ? 0 : roundToEven(Math.fround(value * inverse)));
    let s = 0;
    let m = 0;
    chunk.forEach((value, i) => {
      const group = Math.floor(i / SCALE_GROUP);
      s += block.scales[group]! * block.codes[i]! * code(value);
      m += block.mins[group]! * code(value);
    });
    acc += block.d * scale * s;
    acc -= block.dmin * scale * m;
  });
  return acc;
}
