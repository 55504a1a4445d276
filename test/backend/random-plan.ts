import type { Buffer } from '../../src/backend/op.js';
import { seededRandom } from '../tensor/random.js';
import { CaseBuilder, type OpCase } from './case-builder.js';

const WIDTH = 64;
const HEAD_DIM = 32;
const NUM_OPS = 24;
/** Buffers that ops still read, at most: few, so that many ops meet. */
const MAX_LIVE = 4;
export const RANDOM_VOCAB_SIZE = 33;

/** A plan of ops in any order that read any buffers and whose buffers share memory, with random weights. */
export function randomPlan(seed: number): OpCase {
  const random = seededRandom(seed);
  const below = (count: number) => Math.floor(random() * count);
  const builder = new CaseBuilder(seed + 100);
  const { plan } = builder;
  const inverseFrequencies = Array.from({ length: HEAD_DIM / 2 }, (_, pair) => 1 / (1 + pair));
  const table = plan.ropeTable({ inverseFrequencies, magnitude: 1 });
  let live: Buffer[] = [builder.input(RANDOM_VOCAB_SIZE, WIDTH), builder.input(RANDOM_VOCAB_SIZE, WIDTH)];
  const any = () => live[below(live.length)]!;
  // Later buffers more often, so that ops follow each other as in models.
  const recent = () => live[live.length - 1 - below(2)]!;
  const linear = (x: Buffer) =>
    plan.linear(
      x,
      builder.matrix(random() < 0.7 ? 'f16' : 'q8_0', WIDTH, WIDTH),
      random() < 0.3 ? builder.normal(1, WIDTH) : null,
      'f32',
    );
  const attend = (q: Buffer, k: Buffer, v: Buffer) => {
    const layer = plan.kvLayer({ numKvHeads: 2, headDim: HEAD_DIM });
    if (random() < 0.7) for (const turned of new Set([q, k])) plan.rope(turned, HEAD_DIM, table, random() < 0.2);
    plan.writeKv(k, v, layer);
    return plan.attention(q, layer, { scale: 0.2, window: 0 });
  };
  const ops: (() => Buffer | undefined)[] = [
    () => plan.rmsNorm(recent(), builder.normal(1, WIDTH), 1e-5),
    () => plan.rmsNorm(recent(), builder.normal(1, HEAD_DIM), 1e-5),
    () => linear(recent()),
    () => linear(any()),
    () => {
      const x = recent();
      return plan.siluMul(linear(x), random() < 0.8 ? linear(x) : any());
    },
    () => plan.siluMul(any(), any()),
    () => {
      plan.add(any(), linear(recent()));
      return undefined;
    },
    () => {
      plan.add(any(), any());
      return undefined;
    },
    () => {
      const x = recent();
      return attend(linear(x), linear(x), linear(x));
    },
    () => attend(any(), any(), any()),
  ];
  for (let i = 0; i < NUM_OPS; i++) {
    const made = ops[below(ops.length)]!();
    if (made !== undefined) live = [...live, made].slice(-MAX_LIVE);
  }
  const hidden = plan.rmsNorm(plan.selectRows(any()), builder.normal(1, WIDTH), 1e-5);
  const logits = plan.linear(hidden, builder.matrix('f16', RANDOM_VOCAB_SIZE, WIDTH), null, 'f32');
  const limits = { maxTokens: 40, maxRows: 40, contextSize: 64, blockSize: 4 };
  const opCase = builder.finish(`random-${seed}`, logits, { steps: [], tolerance: 0, limits });
  return { ...opCase, plan: plan.finish(logits) };
}
