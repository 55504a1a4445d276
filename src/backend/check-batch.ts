import { EngineError, invariant } from '../base/errors.js';
import type { Batch, SamplingInputs, SessionLimits } from './backend.js';
import type { Plan } from './plan.js';
import { SAMPLING_WORDS } from './sampling.js';
import { MAX_LABEL_BYTES } from './saved-blocks.js';

/**
 * Checks what the caller of step() got wrong before it crosses to native code, which checks ranges of everything else.
 * Throws TOKEN_ID_INVALID, and INTERNAL for arrays that do not fit each other.
 */
export function checkBatch(batch: Batch, limits: SessionLimits, vocabSize: number, maxSteps: number): void {
  checkSteps(batch, maxSteps);
  const numTokens = batch.tokenIds.length;
  const numSeqs = batch.contextLens.length;
  for (const name of ['tokenIds', 'positions', 'slotMapping', 'queryStart', 'contextLens', 'blockTables'] as const) {
    invariant(batch[name] instanceof Int32Array, `${name} of a batch is no Int32Array`);
  }
  invariant(numTokens <= limits.maxTokens, `a step of ${numTokens} tokens; the session's limit is ${limits.maxTokens}`);
  invariant(
    batch.positions.length === numTokens && batch.slotMapping.length === numTokens,
    `a batch of ${numTokens} tokens has ${batch.positions.length} positions, ${batch.slotMapping.length} slots`,
  );
  invariant(
    batch.queryStart.length === numSeqs + 1,
    `a batch of ${numSeqs} sequences has ${batch.queryStart.length} query starts`,
  );
  const index = batch.tokenIds.findIndex((id) => id < 0 || id >= vocabSize);
  if (index >= 0) throw new EngineError('TOKEN_ID_INVALID', { id: batch.tokenIds[index]!, index, vocabSize });
  checkSampling(batch);
}

/** Throws INTERNAL for more steps than a call can have. */
export function checkSteps({ numSteps = 1 }: Batch, maxSteps: number): void {
  invariant(
    Number.isInteger(numSteps) && numSteps >= 1 && numSteps <= maxSteps,
    `a call of ${numSteps} steps; this session does at most ${maxSteps}`,
  );
}

/** Throws INTERNAL. */
export function checkSampling(inputs: SamplingInputs): void {
  const { sampling, history, bias, mask } = inputs;
  invariant(
    sampling instanceof Int32Array && sampling.length % SAMPLING_WORDS === 0,
    'sampling records have a wrong type or length',
  );
  for (const [name, csr] of Object.entries({ history, bias })) {
    if (csr === undefined) continue;
    invariant(csr.offsets instanceof Int32Array && csr.ids instanceof Int32Array, `${name} holds no Int32Arrays`);
    invariant(csr.offsets.length === sampling.length / SAMPLING_WORDS + 1, `${name} has a wrong number of rows`);
  }
  invariant(bias === undefined || bias.values instanceof Float32Array, 'bias has no Float32Array of values');
  invariant(mask === undefined || mask instanceof Int32Array, 'mask is no Int32Array');
}

/**
 * Throws INTERNAL unless every entry that attention may read is a block. −1 stands for blocks before the first position
 * that any layer's window reaches from a sequence's first query.
 */
export function checkBlockTables(batch: Batch, plan: Plan, limits: SessionLimits): void {
  if (plan.kvLayers.length === 0) return;
  const { blockTables, contextLens, queryStart } = batch;
  const windows = plan.ops.flatMap((op) => (op.op === 'attention' ? [op.window || Infinity] : []));
  const maxBlocks = blockTables.length / Math.max(1, contextLens.length);
  contextLens.forEach((contextLen, s) => {
    const firstQuery = contextLen - (queryStart[s + 1]! - queryStart[s]!);
    const firstVisible = Math.max(0, firstQuery - Math.max(...windows) + 1);
    const numBlocks = Math.ceil(contextLen / limits.blockSize);
    invariant(numBlocks <= maxBlocks, `contextLens[${s}] is ${contextLen}`);
    for (let b = 0; b < numBlocks; b++) {
      const block = blockTables[s * maxBlocks + b]!;
      const lowest = (b + 1) * limits.blockSize <= firstVisible ? -1 : 0;
      invariant(block >= lowest && block < limits.numBlocks, `blockTables[${s * maxBlocks + b}] is ${block}`);
    }
  });
}

/** Throws INTERNAL unless these are at most `most` ids of blocks. */
export function checkBlocks(blocks: Int32Array, { numBlocks }: SessionLimits, most: number): void {
  invariant(blocks instanceof Int32Array, 'ids of blocks are no Int32Array');
  invariant(blocks.length <= most, `${blocks.length} blocks were given; at most ${most} are allowed`);
  for (const block of blocks) invariant(block >= 0 && block < numBlocks, `there is no block ${block}`);
}

/** Throws INTERNAL. */
export function checkLabel(label: Uint8Array): void {
  invariant(label instanceof Uint8Array, 'a label is no Uint8Array');
  invariant(
    label.length <= MAX_LABEL_BYTES,
    `a label has ${label.length} bytes; at most ${MAX_LABEL_BYTES} are allowed`,
  );
}

/** Token ids a plan can look up: the rows of its smallest embedding table. */
export function numTokenIds(plan: Plan): number {
  return Math.min(...plan.ops.map((op) => (op.op === 'embed' ? op.table.rows : Infinity)));
}
