import { EngineError, invariant } from '../base/errors.js';
import type { Batch, SamplingInputs, Session, SessionLimits, StepResult, Want } from './backend.js';
import { checkBatch, checkBlocks, checkLabel, checkSampling, numTokenIds } from './check-batch.js';
import type { NativeFailure, NativeHandle, NativeSampling } from './native-loader.js';
import type { Buffer } from './op.js';
import { hiddenOf, type Plan } from './plan.js';
import { LOGPROBS, MAX_TOP_LOGPROBS, SAMPLING_WORDS, samplingIndex } from './sampling.js';

/** A session whose work is done by native code, in threads of its own. */
export class NativeSession implements Session {
  readonly #handle: NativeHandle;
  readonly #limits: SessionLimits;
  readonly #plan: Plan;
  readonly #numTokenIds: number;
  #disposal: Promise<void> | null = null;

  constructor(
    handle: NativeHandle,
    plan: Plan,
    limits: SessionLimits,
    readonly maxSteps: number,
  ) {
    this.#handle = handle;
    this.#limits = limits;
    this.#plan = plan;
    this.#numTokenIds = numTokenIds(plan);
  }

  async step(batch: Batch, want: Want = {}): Promise<StepResult> {
    this.#checkUsable();
    checkBatch(batch, this.#limits, this.#numTokenIds, this.maxSteps);
    const numRows = batch.sampling.length / SAMPLING_WORDS;
    const results = {
      ...allocateResults(batch, batch.numSteps),
      ...(want.logits && { logits: allocateRows(numRows, this.#plan.logits) }),
      ...(want.hidden && { hidden: allocateRows(numRows, hiddenOf(this.#plan)) }),
    };
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
      batch.numSteps ?? 1,
    );
    if (failure) throw engineError(failure);
    return results;
  }

  sample(logits: Float32Array, positions: Int32Array, inputs: SamplingInputs): StepResult {
    this.#checkUsable();
    checkSampling(inputs);
    const results = allocateResults(inputs);
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

  async copyBlocks(pairs: Int32Array): Promise<void> {
    this.#checkUsable();
    checkBlocks(pairs, this.#limits, 2 * this.#limits.numBlocks);
    const failure = await this.#handle.copyBlocks(pairs);
    if (failure) throw engineError(failure);
  }

  async saveBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.#checkSaved(path, blocks, label);
    const failure = await this.#handle.saveBlocks(path, blocks, label);
    if (failure) throw engineError(failure);
  }

  async loadBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.#checkSaved(path, blocks, label);
    const failure = await this.#handle.loadBlocks(path, blocks, label);
    if (failure) throw engineError(failure);
  }

  /** A step in flight stops at its next op and rejects with DISPOSED, as do steps that wait. */
  dispose(): Promise<void> {
    this.#disposal ??= this.#handle.dispose().then(() => undefined);
    return this.#disposal;
  }

  #checkSaved(path: string, blocks: Int32Array, label: Uint8Array): void {
    this.#checkUsable();
    invariant(!path.includes('\0'), 'a path has a null character'); // it would end there
    checkBlocks(blocks, this.#limits, this.#limits.numBlocks);
    checkLabel(label);
  }

  #checkUsable(): void {
    if (this.#disposal) throw new EngineError('DISPOSED', { what: 'the session' });
  }
}

/** Results are allocated here, where a lack of memory can be reported, and filled in by native code. */
function allocateResults({ sampling }: SamplingInputs, numSteps = 1): StepResult {
  const numRows = numSteps * (sampling.length / SAMPLING_WORDS); // of all steps
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
  };
}

function allocateRows(numRows: number, { width }: Buffer): Float32Array {
  try {
    return new Float32Array(numRows * width);
  } catch (cause) {
    throw new EngineError('OUT_OF_MEMORY', { bytes: numRows * width * 4, what: 'a copy of results' }, { cause });
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
