import { EngineError, invariant } from '../base/errors.js';
import type { Batch, SamplingInputs, Session, SessionLimits, StepResult, Want } from './backend.js';
import { checkBatch, checkSampling, numTokenIds } from './check-batch.js';
import type { NativeFailure, NativeHandle, NativeSampling } from './native-loader.js';
import type { Buffer } from './op.js';
import type { Plan } from './plan.js';
import { LOGPROBS, MAX_TOP_LOGPROBS, SAMPLING_WORDS, samplingIndex } from './sampling.js';

/** A session whose work is done by native code, in threads of its own. */
export class NativeSession implements Session {
  readonly #handle: NativeHandle;
  readonly #limits: SessionLimits;
  readonly #vocabSize: number;
  readonly #numTokenIds: number;
  #disposal: Promise<void> | null = null;

  constructor(handle: NativeHandle, plan: Plan, limits: SessionLimits) {
    this.#handle = handle;
    this.#limits = limits;
    this.#vocabSize = plan.logits.width;
    this.#numTokenIds = numTokenIds(plan);
  }

  async step(batch: Batch, want: Want = {}): Promise<StepResult> {
    this.#checkUsable();
    checkBatch(batch, this.#limits, this.#numTokenIds);
    const results = allocateResults(batch, want.logits ? this.#vocabSize : null);
    const { tokenIds, positions, slotMapping, queryStart, contextLens, blockTables } = batch;
    const failure = await this.#handle.step(
      tokenIds,
      positions,
      slotMapping,
      queryStart,
      contextLens,
      blockTables,
      ...flatten(batch),
      results,
    );
    if (failure) throw engineError(failure);
    return results;
  }

  sample(logits: Float32Array, positions: Int32Array, inputs: SamplingInputs): StepResult {
    this.#checkUsable();
    checkSampling(inputs);
    const results = allocateResults(inputs, null);
    const failure = this.#handle.sample(logits, positions, ...flatten(inputs), results);
    if (failure) throw engineError(failure);
    return results;
  }

  async read(buffer: Buffer): Promise<Float32Array> {
    this.#checkUsable();
    const rows = await this.#handle.read(buffer.id);
    if (!(rows instanceof Float32Array)) throw engineError(rows);
    return rows;
  }

  /** A step in flight stops at its next op and rejects with DISPOSED, as do steps that wait. */
  dispose(): Promise<void> {
    this.#disposal ??= this.#handle.dispose().then(() => undefined);
    return this.#disposal;
  }

  #checkUsable(): void {
    if (this.#disposal) throw new EngineError('DISPOSED', { what: 'the session' });
  }
}

/** Results are allocated here, where a lack of memory can be reported, and filled in by native code. */
function allocateResults({ sampling }: SamplingInputs, vocabSize: number | null): StepResult {
  const numRows = sampling.length / SAMPLING_WORDS;
  let numTop = 0;
  for (let record = 0; record < sampling.length; record += SAMPLING_WORDS) {
    if (sampling[record + samplingIndex.flags]! & LOGPROBS) {
      numTop = Math.max(numTop, sampling[record + samplingIndex.numTop]!);
    }
  }
  invariant(numTop <= MAX_TOP_LOGPROBS, `a row asks for ${numTop} alternatives`);
  return {
    tokens: new Int32Array(numRows),
    logprobs: new Float32Array(numRows),
    topIds: new Int32Array(numRows * numTop),
    topLogprobs: new Float32Array(numRows * numTop),
    ...(vocabSize !== null && { logits: allocateFloats(numRows * vocabSize) }),
  };
}

function allocateFloats(length: number): Float32Array {
  try {
    return new Float32Array(length);
  } catch (cause) {
    throw new EngineError('OUT_OF_MEMORY', { bytes: length * 4, what: 'a copy of logits' }, { cause });
  }
}

function flatten({ sampling, history, bias, mask }: SamplingInputs): NativeSampling {
  return [sampling, history?.offsets, history?.ids, bias?.offsets, bias?.ids, bias?.values, mask];
}

/**
 * The error native code speaks of. Made where the promise was awaited, so that V8 appends the async frames of whoever
 * called; recording a stack with every call would cost a few microseconds each.
 */
export function engineError(failure: NativeFailure): EngineError {
  return new EngineError(failure.code, failure.parameters as never);
}
