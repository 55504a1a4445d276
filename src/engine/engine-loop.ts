import type { Session, SessionLimits, StepResult } from '../backend/backend.js';
import { EngineError, invariant } from '../base/errors.js';
import { type BatchRow, buildBatch } from './batch.js';
import { BlockPool } from './block-pool.js';
import { Scheduler } from './scheduler.js';
import { Sequence, type TokenRequest } from './sequence.js';
import { type SampledToken, TokenStream } from './token-stream.js';

/** What the loop does with a sequence's results. */
interface Sink {
  started(): void;
  /** The sequence's rows of one step; returns true when the sequence is over. */
  accept(rows: readonly number[], result: StepResult): boolean;
  fail(error: unknown): void;
}

/**
 * Schedule → step → update, for as long as there are sequences. Tokens in, tokens out: it knows no models and no text.
 * All requests share one session; whatever they are batched with, each gets the tokens it would get alone.
 */
export class EngineLoop {
  readonly #scheduler: Scheduler;
  readonly #sinks = new Map<Sequence, Sink>();
  #running: Promise<void> | null = null;
  #disposed = false;

  constructor(
    readonly session: Session,
    readonly limits: SessionLimits,
    readonly vocabSize: number,
  ) {
    this.#scheduler = new Scheduler(new BlockPool(limits.numBlocks), limits);
  }

  /** Queues a request. An aborted signal ends its stream with reason `abort` and frees its blocks within one step. */
  submit(request: TokenRequest): TokenStream {
    const sequence = new Sequence(request.promptIds, request.maxTokens, request.sampling);
    const stream = new TokenStream(() => {
      done();
      this.#cancel(sequence);
    });
    const onAbort = () => {
      if (stream.finishReason === null) stream.end('abort');
      this.#cancel(sequence);
    };
    const done = () => request.signal?.removeEventListener('abort', onAbort);
    const sink: Sink = {
      started: () => {
        if (stream.times.started === 0) stream.times.started = performance.now();
      },
      accept: ([row], result) => {
        if (row === undefined) return false;
        const token = sampledToken(row, result, request.sampling.logprobs ?? 0);
        if (token.id < 0) {
          sink.fail(new EngineError('NO_TOKEN_ALLOWED', { position: sequence.numTokens }));
          return true;
        }
        sequence.append(token.id);
        stream.push(token);
        const stopped = request.stopIds.has(token.id);
        const over = stopped || sequence.numGenerated >= request.maxTokens;
        if (over) {
          done();
          stream.end(stopped ? 'stop' : 'length');
        }
        return over;
      },
      fail: (error) => {
        done();
        stream.fail(error);
      },
    };
    this.#start(sequence, sink);
    request.signal?.addEventListener('abort', onAbort, { once: true });
    if (request.signal?.aborted) onAbort();
    return stream;
  }

  /** Logits of every prompt token, [promptIds.length, vocabSize]. Throws ABORTED, OUT_OF_MEMORY. */
  async logits(promptIds: Int32Array, signal?: AbortSignal): Promise<Float32Array> {
    const sequence = new Sequence(promptIds, 0, null);
    const logits = allocateFloats(promptIds.length * this.vocabSize, `logits of ${promptIds.length} tokens`);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#cancel(sequence);
        reject(new EngineError('ABORTED', {}));
      };
      const done = () => signal?.removeEventListener('abort', onAbort);
      this.#start(sequence, {
        started: () => undefined,
        accept: (rows, result) => {
          const first = rows[0]!;
          const chunk = result.logits!.subarray(first * this.vocabSize, (first + rows.length) * this.vocabSize);
          logits.set(chunk, (sequence.numComputedTokens - rows.length) * this.vocabSize);
          if (sequence.numPending > 0) return false;
          done();
          resolve(logits);
          return true;
        },
        fail: (error) => {
          done();
          reject(error);
        },
      });
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) onAbort();
    });
  }

  /** Ends every request with DISPOSED, waits for the step in flight, frees the session. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#failAll(new EngineError('DISPOSED', { what: 'the engine' }));
    await this.session.dispose();
    await this.#running;
  }

  /** Every block is free when nothing is running; for tests. */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity();
  }

  #start(sequence: Sequence, sink: Sink): void {
    if (this.#disposed) throw new EngineError('DISPOSED', { what: 'the engine' });
    invariant(
      sequence.maxSlots <= this.limits.numBlocks * this.limits.blockSize,
      'a request is larger than the KV cache',
    );
    this.#sinks.set(sequence, sink);
    this.#scheduler.add(sequence);
    this.#running ??= this.#run();
  }

  #cancel(sequence: Sequence): void {
    if (this.#sinks.delete(sequence)) this.#scheduler.remove(sequence);
  }

  #failAll(error: unknown): void {
    for (const [sequence, sink] of [...this.#sinks]) {
      this.#cancel(sequence);
      sink.fail(error);
    }
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // requests submitted together start in one batch
    while (!this.#scheduler.isIdle) {
      try {
        await this.#step();
      } catch (error) {
        this.#failAll(error);
      }
    }
    this.#running = null; // before anyone who waits for a result can submit another request
  }

  async #step(): Promise<void> {
    const parts = this.#scheduler.schedule();
    const { batch, rows } = buildBatch(parts, this.limits.blockSize);
    const sinks = parts.map(({ sequence }) => this.#sinks.get(sequence)!);
    for (const sink of sinks) sink.started();
    const wantsLogits = parts.some(({ sequence }) => sequence.sampling === null);
    const result = await this.session.step(batch, { logits: wantsLogits });
    parts.forEach(({ sequence, numTokens }, i) => {
      if (!this.#sinks.has(sequence)) return; // cancelled while the step ran
      sequence.numComputedTokens += numTokens;
      if (sinks[i]!.accept(rowsOf(rows, sequence), result)) this.#cancel(sequence);
    });
  }
}

function allocateFloats(length: number, what: string): Float32Array {
  try {
    return new Float32Array(length);
  } catch (error) {
    throw new EngineError('OUT_OF_MEMORY', { bytes: length * Float32Array.BYTES_PER_ELEMENT, what }, { cause: error });
  }
}

/** Indices of a sequence's rows within a step's results; they are contiguous. */
function rowsOf(rows: readonly BatchRow[], sequence: Sequence): number[] {
  return rows.flatMap((row, index) => (row.sequence === sequence ? [index] : []));
}

function sampledToken(row: number, result: StepResult, numTop: number): SampledToken {
  const numRows = result.tokens.length;
  const width = result.topIds.length / numRows; // alternatives per row of this step, of which this row asked for numTop
  const logprob = result.logprobs[row]!;
  return {
    id: result.tokens[row]!,
    logprob: Number.isNaN(logprob) ? null : logprob,
    top: Array.from({ length: numTop }, (_, i) => ({
      id: result.topIds[row * width + i]!,
      logprob: result.topLogprobs[row * width + i]!,
    })).filter(({ id }) => id >= 0),
  };
}
