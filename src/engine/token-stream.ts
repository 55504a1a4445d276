import { invariant } from '../base/errors.js';
import type { FinishReason } from './sequence.js';

/** One sampled token, with what was asked about it. */
export interface SampledToken {
  readonly id: number;
  /** Log-probability under the unmodified distribution; null if not asked for. */
  readonly logprob: number | null;
  /** Most likely tokens in descending order, as many as asked for. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** When things happened to an answer, in milliseconds of performance.now(). */
export interface TokenTimes {
  submitted: number;
  /** Its first step began. */
  started: number;
  /** Its first token was sampled. */
  firstToken: number;
  finished: number;
}

/** What has become known of one answer since the last time. */
export interface AnswerPart {
  /** Which of the request's answers. */
  readonly choice: number;
  readonly tokens: readonly SampledToken[];
  /** Null while the answer goes on. */
  readonly finishReason: FinishReason | null;
}

interface Answer {
  queue: SampledToken[];
  finishReason: FinishReason | null;
  /** Its end has been told to the reader. */
  told: boolean;
  readonly times: TokenTimes;
}

/**
 * The tokens of one request's answers, as they are sampled. Iterating waits for the next ones; leaving the loop cancels
 * the request. At most maxTokens tokens an answer are ever queued, so a slow reader costs nothing but those.
 */
export class TokenStream implements AsyncIterable<SampledToken> {
  readonly #answers: readonly Answer[];
  #failure: unknown = null;
  #wake: (() => void) | null = null;
  /** Prompt tokens whose keys and values were in the prefix cache; known once a token has come. */
  cachedTokens = 0;

  constructor(
    numAnswers: number,
    /** Ends one answer, or all of them. */
    readonly cancel: (choice: number | null) => void,
  ) {
    const submitted = performance.now();
    this.#answers = Array.from({ length: numAnswers }, () => ({
      queue: [],
      finishReason: null,
      told: false,
      times: { submitted, started: 0, firstToken: 0, finished: 0 },
    }));
  }

  /** Null until the answer has ended. */
  finishReasonOf(choice: number): FinishReason | null {
    return this.#answers[choice]!.finishReason;
  }

  timesOf(choice: number): Readonly<TokenTimes> {
    return this.#answers[choice]!.times;
  }

  /** The first answer's. */
  get finishReason(): FinishReason | null {
    return this.finishReasonOf(0);
  }

  started(): void {
    if (this.#answers[0]!.times.started > 0) return; // again, after a preemption
    const now = performance.now();
    for (const { times } of this.#answers) times.started = now;
  }

  push(choice: number, token: SampledToken): void {
    const { queue, times } = this.#answers[choice]!;
    if (times.firstToken === 0) times.firstToken = performance.now();
    queue.push(token);
    this.#wake?.();
  }

  end(choice: number, reason: FinishReason): void {
    const answer = this.#answers[choice]!;
    if (answer.finishReason !== null) return;
    answer.times.finished = performance.now();
    answer.finishReason = reason;
    this.#wake?.();
  }

  endAll(reason: FinishReason): void {
    this.#answers.forEach((_, choice) => {
      this.end(choice, reason);
    });
  }

  fail(error: unknown): void {
    const now = performance.now();
    for (const { times } of this.#answers) if (times.finished === 0) times.finished = now;
    this.#failure = error;
    this.#wake?.();
  }

  /** Parts of the answers as they become known, the last one of each with its finish reason. */
  async *parts(): AsyncGenerator<AnswerPart, void> {
    try {
      for (;;) {
        const news = this.#answers.some(({ queue, finishReason, told }) => queue.length > 0 || (finishReason && !told));
        if (!news) {
          if (this.#failure !== null) throw this.#failure;
          if (this.#answers.every(({ told }) => told)) return;
          await this.#news();
          continue;
        }
        for (const [choice, answer] of this.#answers.entries()) {
          const { queue: tokens, finishReason, told } = answer;
          if (tokens.length === 0 && (finishReason === null || told)) continue;
          answer.queue = [];
          answer.told = finishReason !== null;
          yield { choice, tokens, finishReason };
        }
      }
    } finally {
      this.cancel(null);
    }
  }

  /** The tokens of a request's only answer. */
  async *[Symbol.asyncIterator](): AsyncGenerator<SampledToken, void> {
    invariant(this.#answers.length === 1, 'a request with several answers was read as one');
    for await (const { tokens } of this.parts()) yield* tokens;
  }

  async #news(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = null;
  }
}
