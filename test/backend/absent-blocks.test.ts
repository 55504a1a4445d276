import { expect, it } from 'vitest';
import type { Batch, Session } from '../../src/backend/backend.js';
import { type KvDType, kvDtypes } from '../../src/backend/kv-dtype.js';
import { describeOnBackends } from './both-backends.js';
import { batchOf, CaseBuilder, type OpCase, writeWeights } from './case-builder.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const LENGTH = 83;
/** Steps of the sequence end here: a prefill, chunks, single tokens. */
const ENDS = [30, 31, 32, 33, 50, 64, 65, 66, 81, 82, LENGTH];

/** One attention layer for each window (0: none), added up. */
function windowed(windows: readonly number[], blockSize: number, kvDtype: KvDType): OpCase {
  const [numHeads, numKvHeads, headDim] = [4, 2, 24];
  const builder = new CaseBuilder(41);
  const { plan } = builder;
  const sum = builder.input(LENGTH, numHeads * headDim);
  for (const window of windows) {
    const layer = plan.kvLayer({ numKvHeads, headDim });
    plan.writeKv(builder.input(LENGTH, numKvHeads * headDim), builder.input(LENGTH, numKvHeads * headDim), layer);
    const q = builder.input(LENGTH, numHeads * headDim);
    plan.add(sum, plan.attention(q, layer, { scale: 0.2, window }));
  }
  const limits = { blockSize, kvDtype, contextSize: 128 };
  return builder.finish(`windows-${windows}-${blockSize}-${kvDtype}`, sum, { steps: [], tolerance: 0, limits });
}

/** Tokens start … end − 1, in blocks that begin at `firstBlock`. */
function part(start: number, end: number, blockSize: number, firstBlock: number): Batch {
  const blocks = Array.from({ length: Math.ceil(LENGTH / blockSize) }, (_, i) => firstBlock + i);
  return batchOf([{ start, count: end - start, blocks }], blockSize);
}

/** Blocks that a window reaches no more from position `start` on. */
const unseen = (start: number, window: number, blockSize: number): number =>
  Math.floor(Math.max(0, start - window + 1) / blockSize);

const withAbsent = (batch: Batch, count: number): Batch => ({
  ...batch,
  blockTables: batch.blockTables.map((block, i) => (i < count ? -1 : block)),
});

describeOnBackends('blocks that no window reaches', (load) => {
  const open = (model: OpCase): Promise<Session> => load(model.plan, writeWeights(model, folder), model.limits);
  const steps = (blockSize: number, firstBlock = 0) =>
    ENDS.map((end, i) => ({ start: ENDS[i - 1] ?? 0, batch: part(ENDS[i - 1] ?? 0, end, blockSize, firstBlock) }));

  it.each(kvDtypes.flatMap((kvDtype) => [4, 16, 24].map((blockSize) => ({ kvDtype, blockSize }))))(
    'may be absent, with the same bits, $kvDtype in blocks of $blockSize',
    async ({ kvDtype, blockSize }) => {
      const session = await open(windowed([5, 13], blockSize, kvDtype));
      let numAbsent = 0;
      for (const { start, batch } of steps(blockSize)) {
        const expected = (await session.step(batch, { logits: true })).logits;
        const count = unseen(start, 13, blockSize);
        expect((await session.step(withAbsent(batch, count), { logits: true })).logits).toEqual(expected);
        numAbsent += count;
      }
      expect(numAbsent).toBeGreaterThan(4);
      await session.dispose();
    },
  );

  it('may belong to others by then', async () => {
    const session = await open(windowed([13], 4, 'f16'));
    const expected: (Float32Array | undefined)[] = [];
    for (const { batch } of steps(4)) expected.push((await session.step(batch, { logits: true })).logits);
    for (const [i, { start, batch }] of steps(4).entries()) {
      const count = unseen(start, 13, 4);
      for (let block = 0; block < count; block++) {
        const other = batchOf([{ start: 0, count: 4, blocks: [block], tokenIds: [70, 71, 72, 73] }], 4);
        await session.step(other);
      }
      expect((await session.step(withAbsent(batch, count), { logits: true })).logits).toEqual(expected[i]);
    }
    await session.dispose();
  });

  it('must be there where any layer sees a position of theirs', async () => {
    for (const windows of [[5, 13], [13]]) {
      const session = await open(windowed(windows, 4, 'f32'));
      for (const { start, batch } of steps(4)) {
        await session.step(batch);
        const count = unseen(start, 13, 4);
        await expect(session.step(withAbsent(batch, count + 1))).rejects.toMatchObject({
          code: 'INTERNAL',
          parameters: { problem: `blockTables[${count}] is -1` },
        });
      }
      await session.dispose();
    }
  });

  it('must be there where one layer has no window', async () => {
    const session = await open(windowed([5, 0, 5], 4, 'f32'));
    const refusal = { code: 'INTERNAL', parameters: { problem: 'blockTables[0] is -1' } };
    for (const { batch } of steps(4)) {
      await session.step(batch);
      await expect(session.step(withAbsent(batch, 1))).rejects.toMatchObject(refusal);
    }
    await session.dispose();
  });

  it('are known by −1 alone', async () => {
    const session = await open(windowed([5], 4, 'f32'));
    for (const { batch } of steps(4)) await session.step(batch);
    const { batch } = steps(4).at(-1)!;
    for (const entry of [-2, 64, 2 ** 31 - 1, -(2 ** 31)]) {
      const blockTables = batch.blockTables.with(3, entry);
      await expect(session.step({ ...batch, blockTables })).rejects.toMatchObject({
        parameters: { problem: `blockTables[3] is ${entry}` },
      });
    }
    await session.dispose();
  });
});
