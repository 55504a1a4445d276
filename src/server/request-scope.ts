import { setMaxListeners } from 'node:events';
import { EngineError } from '../base/errors.js';
import type { CompletionEvent, Outcome } from '../serving/completer.js';
import type { RequestObservation } from './observer.js';

/** One request for work of the engine, from its arrival until its answer has been written. */
export class RequestScope {
  readonly #controller = new AbortController();
  readonly #outcomes = new Map<number, Outcome>(); // by choice
  readonly #deadline: NodeJS.Timeout;
  /** Known once the request has been answered. */
  promptTokens = 0;

  constructor(
    readonly id: string,
    readonly tenant: string | undefined,
    readonly observation: RequestObservation,
    deadlineMs: number,
  ) {
    const expired = () => this.abort(new EngineError('DEADLINE_EXCEEDED', { seconds: deadlineMs / 1000 }));
    this.#deadline = setTimeout(expired, deadlineMs).unref();
    setMaxListeners(0, this.signal); // every prompt of the request listens
  }

  /** Aborted when nobody waits for the answer any more; the reason is an EngineError. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the engine's work on this request. The first reason is kept. */
  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  note(choice: number, event: CompletionEvent): void {
    if (event.tokenIds.length > 0) this.observation.tokens(choice, event.tokenIds.length);
    if (event.outcome !== undefined) this.#outcomes.set(choice, event.outcome);
  }

  /** The status that was sent, or would have been, had a stream not begun by then. */
  end(status: number, error?: unknown): void {
    clearTimeout(this.#deadline);
    const { promptTokens } = this;
    const outcomes = [...this.#outcomes.values()];
    this.observation.end({ status, outcomes, promptTokens, ...(error !== undefined && { error }) });
  }
}
