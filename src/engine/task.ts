import type { StepResult } from '../backend/backend.js';
import type { Sequence } from './sequence.js';

/** What the loop can do for a task. */
export interface TaskHost {
  /** Another answer to the prompt that `sequence` has just computed. */
  fork(sequence: Sequence, other: Sequence): void;
  /** Takes a sequence out and gives back its blocks; one that is not there is left alone. */
  remove(sequence: Sequence): void;
}

/** What a request does with the results of its sequences. */
export interface Task {
  /** A step with one of its sequences begins. */
  started(sequence: Sequence): void;
  /** Rows firstRow … firstRow + numRows − 1 of a step's results are the sequence's. */
  accept(sequence: Sequence, result: StepResult, firstRow: number, numRows: number): void;
  /** All of its sequences are gone. */
  fail(error: unknown): void;
}
