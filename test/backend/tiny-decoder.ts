import type { SessionLimits } from '../../src/backend/backend.js';
import type { Buffer, Weight } from '../../src/backend/op.js';
import { type DType, rowMultiple } from '../../src/tensor/dtype.js';
import { CaseBuilder, type OpCase } from './case-builder.js';

/** What distinguishes the families of decoders, on two layers with 4 heads on 2. */
export interface DecoderShape {
  /** Of all matrices; and of values, down projections and the head. */
  readonly dtype: DType;
  readonly sensitive?: DType;
  readonly headDim: number;
  readonly norm?: 'rms' | 'layer';
  /** Of q, k and v, and of all other linears with `all`. */
  readonly biases?: 'none' | 'attention' | 'all';
  readonly headNorms?: boolean;
  /** Queries and keys are normalised as soon as they are there, before the next linear. */
  readonly earlyNorms?: boolean;
  /** Turned values of a head; 0: positions are learned. Default all of them. */
  readonly rotated?: number;
  readonly interleaved?: boolean;
  readonly mlp?: 'swiGlu' | 'gelu';
  /** Attention and MLP read the same norm, and both are added after it. */
  readonly parallel?: boolean;
  readonly windows?: readonly number[];
  readonly tied?: boolean;
  readonly limits?: Partial<SessionLimits>;
}

const NUM_HEADS = 4;
const NUM_KV_HEADS = 2;
const VOCAB_SIZE = 101;
const CONTEXT_SIZE = 96;
/** At least; whole blocks of the storage types. */
const INTERMEDIATE_SIZE = 160;

/** A decoder with random weights whose buffers share memory, as those of real models do; nothing to run yet. */
export function tinyDecoder(name: string, shape: DecoderShape): OpCase {
  const {
    dtype,
    sensitive = dtype,
    headDim,
    norm = 'rms',
    biases = 'none',
    rotated = headDim,
    windows = [0, 0],
  } = shape;
  const builder = new CaseBuilder(31);
  const { plan } = builder;
  const hiddenSize = NUM_HEADS * headDim;
  const multiple = Math.max(rowMultiple(dtype), rowMultiple(sensitive));
  const intermediateSize = Math.ceil(INTERMEDIATE_SIZE / multiple) * multiple;
  const linearOf = (x: Buffer, weight: Weight, biased: boolean) =>
    plan.linear(x, weight, biased ? builder.normal(1, weight.rows) : null, 'f32');
  const linear = (x: Buffer, rows: number, type = dtype, biased = biases === 'all') =>
    linearOf(x, builder.matrix(type, rows, x.width), biased);
  const normed = (x: Buffer) =>
    norm === 'rms'
      ? plan.rmsNorm(x, builder.normal(1, x.width), 1e-5)
      : plan.layerNorm(x, builder.normal(1, x.width), builder.normal(1, x.width), 1e-5);
  const headNorm = (x: Buffer) => (shape.headNorms ? plan.rmsNorm(x, builder.normal(1, headDim), 1e-6) : x);
  const mlp = (x: Buffer) => {
    const inner =
      shape.mlp === 'gelu'
        ? plan.gelu(linear(x, intermediateSize), true)
        : plan.siluMul(linear(x, intermediateSize), linear(x, intermediateSize));
    return linear(inner, hiddenSize, sensitive);
  };

  const inverseFrequencies = Array.from({ length: rotated / 2 }, (_, pair) => 1000 ** ((-2 * pair) / rotated));
  const table = rotated > 0 ? plan.ropeTable({ inverseFrequencies, magnitude: 1 }) : null;
  const embedding = builder.matrix(dtype, VOCAB_SIZE, hiddenSize);
  let x = plan.embed(embedding);
  if (table === null) plan.addPositions(x, builder.matrix('f32', CONTEXT_SIZE, hiddenSize));
  windows.forEach((window, i) => {
    const layer = plan.kvLayer({ numKvHeads: NUM_KV_HEADS, headDim });
    const h = normed(x);
    const project = (heads: number, type?: DType) => linear(h, heads * headDim, type, biases !== 'none');
    const early = shape.earlyNorms ? headNorm : (projected: Buffer) => projected;
    const late = shape.earlyNorms ? (projected: Buffer) => projected : headNorm;
    const queries = early(project(NUM_HEADS));
    const keys = early(project(NUM_KV_HEADS));
    const v = project(NUM_KV_HEADS, sensitive);
    const [q, k] = [late(queries), late(keys)];
    if (table !== null) {
      plan.rope(q, headDim, table, shape.interleaved ?? false);
      plan.rope(k, headDim, table, shape.interleaved ?? false);
    }
    plan.writeKv(k, v, layer);
    let heads = plan.attention(q, layer, { scale: headDim ** -0.5, window });
    if (shape.parallel) {
      const branch = mlp(h);
      plan.add(x, linear(heads, hiddenSize));
      plan.add(x, branch);
      return;
    }
    if (i === windows.length - 1) [x, heads] = [plan.selectRows(x), plan.selectRows(heads)];
    plan.add(x, linear(heads, hiddenSize));
    plan.add(x, mlp(normed(x)));
  });
  const hidden = normed(x.rows === 'logits' ? x : plan.selectRows(x));
  const logits = shape.tied ? linearOf(hidden, embedding, false) : linear(hidden, VOCAB_SIZE, sensitive, false);
  const limits = { maxTokens: 72, maxRows: 72, contextSize: CONTEXT_SIZE, blockSize: 4, ...shape.limits };
  return { ...builder.finish(name, logits, { steps: [], tolerance: 0, limits }), plan: plan.finish(logits) };
}
