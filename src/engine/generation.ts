import type { StepResult } from '../backend/backend.js';
import { EngineError } from '../base/errors.js';
import { Sequence, type TokenRequest } from './sequence.js';
import type { Task, TaskHost } from './task.js';
import { type SampledToken, TokenStream } from './token-stream.js';

/** The answers of one request, from sampled rows to a stream of tokens. */
export class Generation implements Task {
  readonly stream: TokenStream;
  /** The first computes the prompt; the others start from its blocks. */
  readonly sequences: readonly Sequence[];
  readonly #onAbort = (): void => {
    this.stream.endAll('abort');
    this.#stop();
  };

  constructor(
    readonly request: TokenRequest,
    blockSize: number,
    readonly host: TaskHost,
  ) {
    const { promptIds, maxTokens, sampling, n = 1 } = request;
    const wanted = { kind: 'tokens', sampling } as const;
    const arrival = performance.now();
    this.sequences = Array.from(
      { length: n },
      (_, choice) => new Sequence(promptIds, maxTokens, wanted, blockSize, request, arrival, choice),
    );
    this.sequences[0]!.forks = this.sequences.slice(1);
    this.stream = new TokenStream(n, (choice) => {
      if (choice === null) this.#stop();
      else this.#finish(this.sequences[choice]!, 'stop');
    });
  }

  /** The sequence that computes the prompt is with the scheduler. */
  begin(): void {
    const { signal } = this.request;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
  }

  started(): void {
    this.stream.started();
  }

  accept(sequence: Sequence, result: StepResult, firstRow: number, numRows: number): void {
    if (numRows === 0) return; // a piece of the prompt
    const { forks } = sequence;
    sequence.forks = [];
    this.stream.cachedTokens = this.sequences[0]!.numCachedTokens;
    for (const [i, fork] of forks.entries()) {
      if (this.#isWanted(fork) && result.tokens[firstRow + 1 + i]! >= 0) this.host.fork(sequence, fork);
    }
    if (!this.#isWanted(sequence)) this.host.remove(sequence);
    [sequence, ...forks].forEach((answer, i) => {
      if (this.#isWanted(answer)) this.#take(answer, result, firstRow + i);
    });
  }

  fail(error: unknown): void {
    this.#forgetSignal();
    this.stream.fail(error);
  }

  #take(sequence: Sequence, result: StepResult, row: number): void {
    const { sampling, stopIds, maxTokens } = this.request;
    const token = sampledToken(row, result, sampling.logprobs ?? 0);
    if (token.id < 0) {
      for (const each of this.sequences) this.host.remove(each);
      this.fail(new EngineError('NO_TOKEN_ALLOWED', { position: sequence.numTokens }));
      return;
    }
    sequence.append(token.id);
    this.stream.push(sequence.choice, token);
    if (stopIds.has(token.id)) this.#finish(sequence, 'stop');
    else if (sequence.numGenerated >= maxTokens) this.#finish(sequence, 'length');
  }

  #finish(sequence: Sequence, reason: 'stop' | 'length'): void {
    this.stream.end(sequence.choice, reason);
    if (!this.sequences.some((each) => this.#isWanted(each))) this.#stop();
    else if (sequence.forks.length === 0) this.host.remove(sequence); // else it still computes the prompt for the others
  }

  #isWanted({ choice }: Sequence): boolean {
    return this.stream.finishReasonOf(choice) === null;
  }

  #stop(): void {
    this.#forgetSignal();
    for (const sequence of this.sequences) this.host.remove(sequence);
  }

  #forgetSignal(): void {
    this.request.signal?.removeEventListener('abort', this.#onAbort);
  }
}

function sampledToken(row: number, result: StepResult, numTop: number): SampledToken {
  const logprob = result.logprobs[row]!;
  const top = [];
  if (numTop > 0) {
    const width = result.topIds.length / result.tokens.length; // of which this row asked for numTop
    for (let i = row * width; i < row * width + numTop && result.topIds[i]! >= 0; i++) {
      top.push({ id: result.topIds[i]!, logprob: result.topLogprobs[i]! });
    }
  }
  return { id: result.tokens[row]!, logprob: Number.isNaN(logprob) ? null : logprob, top };
}
