import { EngineError, invariant } from '../base/errors.js';
import type { Batch, SamplingInputs, SessionLimits } from './backend.js';
import type { Plan } from './plan.js';
import { SAMPLING_WORDS } from './sampling.js';

/**
 * Checks what the caller of step() got wrong before it crosses to native code, which checks ranges of everything else.
 * Throws TOKEN_ID_INVALID, and INTERNAL for arrays that do not fit each other.
 */
export function checkBatch(batch: Batch, limits: SessionLimits, vocabSize: number): void {
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

/** Token ids a plan can look up: the rows of its smallest embedding table. */
export function numTokenIds(plan: Plan): number {
  return Math.min(...plan.ops.map((op) => (op.op === 'embed' ? op.table.rows : Infinity)));
}
