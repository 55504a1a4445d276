import type { Batch } from '../../src/backend/backend.js';

/** The step after one in which every sequence had one token: each has the one that was sampled, at the next position. */
export function followingBatch(batch: Batch, tokens: Int32Array, blockSize: number): Batch {
  const maxBlocks = batch.blockTables.length / batch.contextLens.length;
  const positions = batch.positions.map((position) => position + 1);
  return {
    ...batch,
    tokenIds: tokens.slice(),
    positions,
    slotMapping: positions.map((position, s) => {
      const block = batch.blockTables[s * maxBlocks + Math.floor(position / blockSize)]!;
      return block * blockSize + (position % blockSize);
    }),
    contextLens: batch.contextLens.map((length) => length + 1),
  };
}
