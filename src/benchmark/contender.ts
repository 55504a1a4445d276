import type { KvDType } from '../backend/kv-dtype.js';
import type { SpeedKind } from './speed.js';
import type { Workload } from './throughput.js';

export interface ContenderRun {
  /** Path of a GGUF file. */
  readonly model: string;
  /** Of the model: prompts are made of its tokens. */
  readonly vocabSize: number;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
}

export interface SpeedRun extends ContenderRun {
  readonly kind: SpeedKind;
  readonly workload: Workload;
  /** Measurements, after at least one that warms up. */
  readonly runs: number;
}

export interface GreedyRun extends ContenderRun {
  readonly promptIds: Int32Array;
  readonly generatedTokens: number;
}

/**
 * An engine that takes part in a comparison. Every call is a process of its own that is gone when it returns: the
 * others are timed with no thread of it alive, and each has paid for loading before its clock starts.
 */
export interface Contender {
  readonly name: string;
  /** Bytes of a key or value that it keeps. */
  readonly kvDtype: KvDType;
  /** Tokens per second over all sequences, one number a measurement; null if it cannot measure this. */
  measure(run: SpeedRun): Promise<readonly number[] | null>;
  /** Token ids after a prompt, the likeliest each; null if it cannot say. */
  greedy(run: GreedyRun): Promise<readonly number[] | null>;
}
