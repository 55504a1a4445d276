import { EngineError } from '../base/errors.js';

/** Work in pieces of some tenths of a millisecond: `next()` does one. */
export type Work<T> = Generator<void, T, void>;

/** Does all of it at once. */
export function finish<T>(work: Work<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}

/** Milliseconds of work between two turns of the event loop, for all that is in a queue together. */
const TURN_MS = 2.5;

/** One piece of somebody's work; false when it was the last one. */
type Job = () => boolean;

/**
 * Does long work without holding the event loop: some pieces in every turn of it, one of each job after the other, so
 * that many at once hold it no longer than one does.
 */
export class WorkQueue {
  readonly #jobs: Job[] = [];
  #isScheduled = false;

  /** What the work gives. Throws what it throws, and ABORTED. */
  run<T>(work: Work<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push(() => {
        try {
          if (signal?.aborted) throw new EngineError('ABORTED', {}, { cause: signal.reason });
          const { done, value } = work.next();
          if (done) resolve(value);
          return !done;
        } catch (error) {
          reject(error);
          return false;
        }
      });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#isScheduled || this.#jobs.length === 0) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#turn();
      this.#schedule();
    });
  }

  #turn(): void {
    const end = performance.now() + TURN_MS;
    for (let job = this.#jobs.shift(); job !== undefined; job = this.#jobs.shift()) {
      if (job()) this.#jobs.push(job);
      if (performance.now() >= end) return;
    }
  }
}
