import type { Batch, SessionLimits } from '../../src/backend/backend.js';
import type { KvDType } from '../../src/backend/kv-dtype.js';
import type { Activations, Buffer } from '../../src/backend/op.js';
import { type DType, isPacked, rowMultiple } from '../../src/tensor/dtype.js';
import { seededRandom } from '../tensor/random.js';
import { batchOf, CaseBuilder, type OpCase } from './case-builder.js';

const VOCAB_SIZE = 117;
/** At least; whole blocks of the storage types. There are as many heads as that makes. */
const HIDDEN_SIZE = 64;
const INTERMEDIATE_SIZE = 160;
const NUM_KV_HEADS = 2;
const HEAD_DIM = 16;
const NUM_LAYERS = 2;

const limits: Partial<SessionLimits> = { blockSize: 4, numBlocks: 64, contextSize: 64 };

/**
 * A two-layer Llama with random weights of this type, and nothing to run yet. `sensitive` is the type of the value and
 * down projections and of the head, as in a Q4_K_M file.
 */
export function tinyLlama(
  name: string,
  dtype: DType,
  activations: Activations,
  kvDtype: KvDType,
  sensitive: DType = dtype,
): OpCase {
  const builder = new CaseBuilder(77);
  const { plan } = builder;
  const multiple = Math.max(rowMultiple(dtype), rowMultiple(sensitive));
  const [hiddenSize, intermediateSize] = [HIDDEN_SIZE, INTERMEDIATE_SIZE].map(
    (size) => Math.ceil(size / multiple) * multiple,
  ) as [number, number];
  const linear = (x: Buffer, rows: number, type = dtype): Buffer =>
    plan.linear(x, builder.matrix(type, rows, x.width), null, activations);
  const norm = (x: Buffer): Buffer => plan.rmsNorm(x, builder.normal(1, x.width), 1e-5);

  const inverseFrequencies = Array.from({ length: HEAD_DIM / 2 }, (_, pair) => 10000 ** ((-2 * pair) / HEAD_DIM));
  const table = plan.ropeTable({ inverseFrequencies, magnitude: 1 });
  const x = plan.embed(builder.matrix(isPacked(dtype) ? 'int8' : 'f16', VOCAB_SIZE, hiddenSize));
  for (let i = 0; i < NUM_LAYERS; i++) {
    const layer = plan.kvLayer({ numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM });
    const normed = norm(x);
    const q = linear(normed, hiddenSize);
    const k = linear(normed, NUM_KV_HEADS * HEAD_DIM);
    const v = linear(normed, NUM_KV_HEADS * HEAD_DIM, sensitive);
    plan.rope(q, HEAD_DIM, table, false);
    plan.rope(k, HEAD_DIM, table, false);
    plan.writeKv(k, v, layer);
    plan.add(x, linear(plan.attention(q, layer, { scale: HEAD_DIM ** -0.5, window: 0 }), hiddenSize));
    const mlpIn = norm(x);
    const hidden = plan.siluMul(linear(mlpIn, intermediateSize), linear(mlpIn, intermediateSize));
    plan.add(x, linear(hidden, hiddenSize, sensitive));
  }
  const logits = linear(norm(plan.selectRows(x)), VOCAB_SIZE, sensitive);
  return builder.finish(name, logits, { steps: [], tolerance: 1e-4, limits: { ...limits, kvDtype } });
}

const random = seededRandom(99);
const LENGTH = 29;
const BLOCKS_PER_SEQUENCE = 8;
const PROMPT_LENGTH = 7;

/** Two sequences of tokens. */
const tokens = [0, 1].map(() => Array.from({ length: LENGTH }, () => Math.floor(random() * VOCAB_SIZE)));

/**
 * Ways to compute the logits of sequence 0 that must give the same bits. Rows of sequence 0 come first in their order;
 * those of the other sequence, if any, are not asked for.
 */
export const schedules: Readonly<Record<string, readonly Batch[]>> = {
  'in one prefill': [batchOf([part(0, 0, LENGTH, [0, 1, 2, 3, 4, 5, 6, 7])], 4)],
  'in chunks, in scattered blocks': [0, 1, 8, 9, 20].map((start, i, starts) =>
    batchOf([part(0, start, starts[i + 1] ?? LENGTH, [50, 3, 61, 7, 8, 2, 40, 13])], 4),
  ),
  'token by token': Array.from({ length: LENGTH }, (_, i) => batchOf([part(0, i, i + 1, [9, 8, 7, 6, 5, 4, 3, 2])], 4)),
  'beside another sequence': [
    batchOf([other(0, 5), part(0, 0, 10, [1, 3, 5, 7, 9, 11, 13, 15])], 4),
    batchOf([part(0, 10, 11, [1, 3, 5, 7, 9, 11, 13, 15]), other(5, LENGTH)], 4),
    batchOf([part(0, 11, LENGTH, [1, 3, 5, 7, 9, 11, 13, 15])], 4),
  ],
};

/** Sequence 0 as in `schedules`: its prompt, then a token a step, in a batch of so many sequences (at most 8). */
export function inBatchOf(size: number): Batch[] {
  const steps = [0, ...Array.from({ length: LENGTH - PROMPT_LENGTH }, (_, i) => PROMPT_LENGTH + i), LENGTH];
  return steps.slice(0, -1).map((start, i) => {
    const parts = Array.from({ length: size }, (_, sequence) => {
      const blocks = Array.from({ length: BLOCKS_PER_SEQUENCE }, (_, b) => BLOCKS_PER_SEQUENCE * sequence + b);
      return { ...part(sequence % 2, start, steps[i + 1]!, blocks), ...(sequence > 0 && { wanted: [] }) };
    });
    return batchOf(parts, 4);
  });
}

function part(sequence: number, start: number, end: number, blocks: readonly number[]) {
  return { start, count: end - start, blocks, tokenIds: tokens[sequence]!.slice(start, end) };
}

function other(start: number, end: number) {
  return { ...part(1, start, end, [20, 22, 24, 26, 28, 30, 32, 34]), wanted: [] };
}
