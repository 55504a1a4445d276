import { EngineError, type ErrorCode } from '../base/errors.js';
import type { Batch, SessionLimits, StepResult, Want, WeightTable } from './backend.js';
import type { Buffer } from './op.js';
import type { Plan } from './plan.js';
import type { ReferenceOptions } from './reference.js';

/** What the session sends to its worker thread, first of all `load`; every request is answered, in order. */
export type ReferenceRequest =
  | {
      readonly kind: 'load';
      readonly plan: Plan;
      readonly weights: WeightTable;
      readonly limits: SessionLimits;
      readonly options: ReferenceOptions;
    }
  | { readonly kind: 'step'; readonly batch: Batch; readonly want: Want }
  | { readonly kind: 'read'; readonly buffer: Buffer }
  | { readonly kind: 'copyBlocks'; readonly pairs: Int32Array }
  | {
      readonly kind: 'saveBlocks' | 'loadBlocks';
      readonly path: string;
      readonly blocks: Int32Array;
      readonly label: Uint8Array;
    };

export type ReferenceAnswer =
  | { readonly kind: 'value'; readonly value: StepResult | Float32Array | null }
  | { readonly kind: 'error'; readonly code: ErrorCode; readonly parameters: unknown; readonly stack: string };

/** An error as data: threads cannot pass instances of our classes. */
export function describeError(error: unknown): ReferenceAnswer {
  const known =
    error instanceof EngineError ? error : new EngineError('INTERNAL', { problem: `the reference backend: ${error}` });
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  return { kind: 'error', code: known.code, parameters: known.parameters, stack };
}

/** The error in the thread of the caller, with its code and parameters; the worker's stack is the cause. */
export function rebuildError(answer: ReferenceAnswer & { kind: 'error' }): EngineError {
  return new EngineError(answer.code, answer.parameters as never, { cause: answer.stack });
}
