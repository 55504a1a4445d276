import { createHash } from 'node:crypto';
import { EngineError } from '../base/errors.js';

/** What the results of an evaluation depend on, by name, as far as they can be compared. */
export type Identity = Readonly<Record<string, string | number>>;

/** An evaluation that stopped between two windows, fit for JSON: every number is finite. */
export interface SavedEvaluation {
  readonly version: 1;
  readonly identity: Identity;
  /** Windows that are done. */
  readonly windows: number;
  /** Sums so far; what they are is the evaluation's own matter. */
  readonly scores: unknown;
}

/** How far it got. Throws SAVED_EVALUATION_UNUSABLE unless it is of the same evaluation. */
export function windowsDone(saved: SavedEvaluation, identity: Identity, numWindows: number): number {
  if (typeof saved !== 'object' || saved === null || saved.version !== 1) {
    throw unusable('it is not one of this version');
  }
  const before = saved.identity;
  if (typeof before !== 'object' || before === null) throw unusable('it does not say what it evaluated');
  for (const name of new Set([...Object.keys(identity), ...Object.keys(before)])) {
    const [then, now] = [before, identity].map((values) => (Object.hasOwn(values, name) ? values[name] : 'not given'));
    if (then !== now) throw unusable(`${name} was ${String(then)} and is ${String(now)}`);
  }
  const { windows } = saved;
  if (!Number.isInteger(windows) || windows < 0 || windows > numWindows) {
    throw unusable(`it has ${String(windows)} of ${numWindows} windows`);
  }
  return windows;
}

export function unusable(problem: string): EngineError {
  return new EngineError('SAVED_EVALUATION_UNUSABLE', { problem });
}

/** Tells texts apart. */
export function digest(ids: Int32Array): string {
  return createHash('sha256')
    .update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))
    .digest('hex')
    .slice(0, 32);
}
