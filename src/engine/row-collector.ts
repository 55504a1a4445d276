import type { StepResult } from '../backend/backend.js';
import { EngineError } from '../base/errors.js';
import type { Sequence } from './sequence.js';
import type { Task, TaskHost } from './task.js';

/** Gives every row of a sequence's results to `take`, and resolves when the prompt is computed. */
export class RowCollector implements Task {
  readonly done: Promise<void>;
  #numTaken = 0; // tokens; rows computed again after a preemption are not taken twice
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #onAbort = (): void => {
    this.host.remove(this.sequence);
    this.fail(new EngineError('ABORTED', {}));
  };

  constructor(
    readonly sequence: Sequence,
    /** `position` is that of the first row's token. */
    readonly take: (result: StepResult, firstRow: number, numRows: number, position: number) => void,
    readonly host: TaskHost,
    readonly signal: AbortSignal | undefined,
  ) {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  begin(): void {
    this.signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (this.signal?.aborted) this.#onAbort();
  }

  started(): void {}

  accept(sequence: Sequence, result: StepResult, firstRow: number, numRows: number): void {
    const position = sequence.numComputedTokens - numRows;
    const numKnown = Math.min(numRows, Math.max(0, this.#numTaken - position));
    this.take(result, firstRow + numKnown, numRows - numKnown, position + numKnown);
    this.#numTaken = Math.max(this.#numTaken, sequence.numComputedTokens);
    if (sequence.numPending > 0) return;
    this.host.remove(sequence);
    this.signal?.removeEventListener('abort', this.#onAbort);
    this.#resolve();
  }

  fail(error: unknown): void {
    this.signal?.removeEventListener('abort', this.#onAbort);
    this.#reject(error);
  }
}
