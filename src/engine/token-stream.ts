import type { FinishReason } from './sequence.js';

/** One sampled token, with what was asked about it. */
export interface SampledToken {
  readonly id: number;
  /** Log-probability under the unmodified distribution; null if not asked for. */
  readonly logprob: number | null;
  /** Most likely tokens in descending order, as many as asked for. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** When things happened to a request, in milliseconds of performance.now(). */
export interface TokenTimes {
  submitted: number;
  /** Its first step began. */
  started: number;
  /** Its first token was sampled. */
  firstToken: number;
  finished: number;
}

/**
 * The tokens of one request, as they are sampled. Iterating waits for the next token; leaving the loop cancels the
 * request. At most maxTokens tokens are ever queued, so a slow reader costs nothing but those.
 */
export class TokenStream implements AsyncIterable<SampledToken> {
  readonly times: TokenTimes = { submitted: performance.now(), started: 0, firstToken: 0, finished: 0 };
  #queue: SampledToken[] = [];
  #finishReason: FinishReason | null = null;
  #failure: unknown = null;
  #wake: (() => void) | null = null;

  constructor(readonly cancel: () => void) {}

  /** Null until the stream has ended. */
  get finishReason(): FinishReason | null {
    return this.#finishReason;
  }

  push(token: SampledToken): void {
    if (this.times.firstToken === 0) this.times.firstToken = performance.now();
    this.#queue.push(token);
    this.#wake?.();
  }

  end(reason: FinishReason): void {
    this.times.finished = performance.now();
    this.#finishReason = reason;
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.times.finished = performance.now();
    this.#failure = error;
    this.#wake?.();
  }

  /** Tokens arrive in the batches in which they became known. */
  async *batches(): AsyncGenerator<SampledToken[], void> {
    try {
      for (;;) {
        if (this.#queue.length > 0) {
          const tokens = this.#queue;
          this.#queue = [];
          yield tokens;
        } else if (this.#failure !== null) throw this.#failure;
        else if (this.#finishReason !== null) return;
        else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          this.#wake = null;
        }
      }
    } finally {
      this.cancel();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SampledToken, void> {
    for await (const tokens of this.batches()) yield* tokens;
  }
}
