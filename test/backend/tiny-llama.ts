import type { Batch, SessionLimits } from '../../src/backend/backend.js';
import type { KvDType } from '../../src/backend/kv-dtype.js';
import type { Activations, Buffer } from '../../src/backend/op.js';
import type { DType } from '../../src/tensor/dtype.js';
import { seededRandom } from '../tensor/random.js';
import { batchOf, CaseBuilder, type OpCase } from './case-builder.js';

const VOCAB_SIZE = 117;
const HIDDEN_SIZE = 64;
const INTERMEDIATE_SIZE = 160;
const NUM_HEADS = 4;
const NUM_KV_HEADS = 2;
const HEAD_DIM = 16;
const NUM_LAYERS = 2;

const limits: Partial<SessionLimits> = { blockSize: 4, numBlocks: 64, contextSize: 64 };

/** A two-layer Llama with random weights of this type, and nothing to run yet. */
export function tinyLlama(name: string, dtype: DType, activations: Activations, kvDtype: KvDType): OpCase {
  const builder = new CaseBuilder(77);
  const { plan } = builder;
  const linear = (x: Buffer, rows: number): Buffer =>
    plan.linear(x, builder.matrix(dtype, rows, x.width), null, activations);
  const norm = (x: Buffer): Buffer => plan.rmsNorm(x, builder.normal(1, x.width), 1e-5);

  const inverseFrequencies = Array.from({ length: HEAD_DIM / 2 }, (_, pair) => 10000 ** ((-2 * pair) / HEAD_DIM));
  const table = plan.ropeTable({ inverseFrequencies, magnitude: 1 });
  const x = plan.embed(builder.matrix('f16', VOCAB_SIZE, HIDDEN_SIZE));
  for (let i = 0; i < NUM_LAYERS; i++) {
    const layer = plan.kvLayer({ numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM });
    const normed = norm(x);
    const q = linear(normed, NUM_HEADS * HEAD_DIM);
    const k = linear(normed, NUM_KV_HEADS * HEAD_DIM);
    const v = linear(normed, NUM_KV_HEADS * HEAD_DIM);
    plan.rope(q, HEAD_DIM, table, false);
    plan.rope(k, HEAD_DIM, table, false);
    plan.writeKv(k, v, layer);
    plan.add(x, linear(plan.attention(q, layer, { scale: HEAD_DIM ** -0.5, window: 0 }), HIDDEN_SIZE));
    const mlpIn = norm(x);
    const hidden = plan.siluMul(linear(mlpIn, INTERMEDIATE_SIZE), linear(mlpIn, INTERMEDIATE_SIZE));
    plan.add(x, linear(hidden, HIDDEN_SIZE));
  }
  const logits = linear(norm(plan.selectRows(x)), VOCAB_SIZE);
  return builder.finish(name, logits, { steps: [], tolerance: 1e-4, limits: { ...limits, kvDtype } });
}

const random = seededRandom(99);
const LENGTH = 29;

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

function part(sequence: number, start: number, end: number, blocks: readonly number[]) {
  return { start, count: end - start, blocks, tokenIds: tokens[sequence]!.slice(start, end) };
}

function other(start: number, end: number) {
  return { ...part(1, start, end, [20, 22, 24, 26, 28, 30, 32, 34]), wanted: [] };
}
