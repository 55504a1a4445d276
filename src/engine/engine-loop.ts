import type { Session, SessionLimits, StepResult } from '../backend/backend.js';
import { EngineError, invariant } from '../base/errors.js';
import { buildBatch } from './batch.js';
import { BlockPool } from './block-pool.js';
import type { EngineStats } from './engine-stats.js';
import { Generation } from './generation.js';
import { PrefixCache } from './prefix-cache.js';
import { RowCollector } from './row-collector.js';
import { SavedPrompts, type SavedPromptsOptions } from './saved-prompts.js';
import { type ScheduledPart, Scheduler } from './scheduler.js';
import { Sequence, type Standing, type TokenRequest, type Wanted } from './sequence.js';
import { StepRecord } from './step-record.js';
import type { Task, TaskHost } from './task.js';
import type { TokenStream } from './token-stream.js';

/** What a loop is made for, besides its session. */
export interface LoopOptions {
  readonly vocabSize: number;
  /** Width of the hidden states that the head reads. */
  readonly hiddenSize: number;
  /** Positions that the layer that looks back farthest sees; null if one sees them all. Default null. */
  readonly window?: number | null | undefined;
  /** Most requests that wait; one more is refused with QUEUE_FULL. Default 4,096. */
  readonly maxWaiting?: number | undefined;
  /**
   * Steps to do in one call of the session's, where it can do several, while nobody waits. Whoever comes waits for the
   * call to end. Default: as many as it can do.
   */
  readonly maxStepsPerCall?: number | undefined;
  /** Keep keys and values of prompts for those that begin alike. Default true. */
  readonly prefixCache?: boolean | undefined;
  /** Keep shared beginnings of prompts in files, too. Default: none. */
  readonly savedPrompts?: SavedPromptsOptions | undefined;
}

const DEFAULT_MAX_WAITING = 4096;
/** Prompt tokens of a step that others wait for: on a small machine about a tenth of a second for a model of 1B. */
const MAX_PROMPT_TOKENS_BESIDE_DECODE = 64;

/** Whose request it is, and how to end it. */
export interface RequestOptions extends Standing {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Schedule → step → update, for as long as there are sequences. Tokens in, tokens out: it knows no models and no text.
 * All requests share one session; whatever they are batched with, each gets the tokens it would get alone.
 *
 * The next step is under way before anyone hears of the last one's tokens: whoever decodes text and writes to sockets
 * does so while the session computes.
 */
export class EngineLoop {
  readonly vocabSize: number;
  readonly #scheduler: Scheduler;
  readonly #savedPrompts: SavedPrompts | null;
  readonly #tasks = new Map<Sequence, Task>();
  readonly #host: TaskHost = {
    fork: (sequence, other) => {
      this.#scheduler.fork(sequence, other);
      this.#tasks.set(other, this.#tasks.get(sequence)!);
    },
    remove: (sequence) => {
      if (this.#tasks.delete(sequence)) this.#scheduler.remove(sequence);
    },
  };
  #running: Promise<void> | null = null;
  #disposal: Promise<void> | null = null;
  readonly #steps = new StepRecord();
  #generatedTokens = 0;

  constructor(
    readonly session: Session,
    readonly limits: SessionLimits,
    readonly options: LoopOptions,
  ) {
    this.vocabSize = options.vocabSize;
    const pool = new BlockPool(limits.numBlocks);
    const prefixCache = new PrefixCache(pool, limits.blockSize, options.prefixCache ?? true);
    this.#scheduler = new Scheduler(pool, prefixCache, limits, {
      maxWaiting: options.maxWaiting ?? DEFAULT_MAX_WAITING,
      maxPromptTokensBesideDecode: MAX_PROMPT_TOKENS_BESIDE_DECODE,
      window: options.window ?? null,
      maxSteps: Math.min(session.maxSteps, options.maxStepsPerCall ?? session.maxSteps),
    });
    this.#savedPrompts = options.savedPrompts
      ? new SavedPrompts(session, prefixCache, limits, options.savedPrompts, () => this.#running === null)
      : null;
  }

  /**
   * Queues a request. An aborted signal ends its stream with reason `abort` and frees its blocks within one call of the
   * session's. Throws QUEUE_FULL, DISPOSED.
   */
  submit(request: TokenRequest): TokenStream {
    const generation = new Generation(request, this.limits.blockSize, this.#host);
    this.#start(generation.sequences[0]!, generation);
    generation.begin();
    return generation.stream;
  }

  /** Logits of every prompt token, [promptIds.length, vocabSize]. Throws ABORTED, OUT_OF_MEMORY, QUEUE_FULL, DISPOSED. */
  async logits(promptIds: Int32Array, options: RequestOptions = {}): Promise<Float32Array> {
    const { vocabSize } = this;
    const logits = allocateFloats(promptIds.length * vocabSize, `logits of ${promptIds.length} tokens`);
    await this.#collect(promptIds, { kind: 'logits' }, options, (result, firstRow, numRows, position) => {
      const rows = result.logits!.subarray(firstRow * vocabSize, (firstRow + numRows) * vocabSize);
      logits.set(rows, position * vocabSize);
    });
    return logits;
  }

  /**
   * One vector for a prompt, [hiddenSize], not normalised: the mean of what the head would read of its tokens, or the
   * last token's. Throws ABORTED, QUEUE_FULL, DISPOSED.
   */
  async pooled(promptIds: Int32Array, pooling: 'mean' | 'last', options: RequestOptions = {}): Promise<Float32Array> {
    const { hiddenSize } = this.options;
    const everyRow = pooling === 'mean';
    const sum = new Float64Array(hiddenSize); // in order of position, whatever the steps were
    await this.#collect(promptIds, { kind: 'hidden', everyRow }, options, (result, firstRow, numRows) => {
      for (let row = firstRow; row < firstRow + numRows; row++) {
        for (let i = 0; i < hiddenSize; i++) sum[i]! += result.hidden![row * hiddenSize + i]!;
      }
    });
    return Float32Array.from(sum, (value) => (everyRow ? value / promptIds.length : value));
  }

  /** Ends every request with DISPOSED, saves prompts that are worth it, waits for the step in flight, frees the session. */
  dispose(): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  async #dispose(): Promise<void> {
    this.#failAll(new EngineError('DISPOSED', { what: 'the engine' }));
    if (this.#savedPrompts !== null) await this.#savedPrompts.close();
    await this.session.dispose();
    await this.#running;
  }

  stats(): EngineStats {
    const { numRunning, numWaiting, numPreemptions, pool, prefixCache } = this.#scheduler;
    const { numBlocks: total, numAvailable, numIdle } = pool;
    const { queriedTokens, hitTokens, evictedBlocks } = prefixCache;
    return {
      running: numRunning,
      waiting: numWaiting,
      blocks: { total, used: total - numAvailable, cached: numIdle },
      prefixCache: { queriedTokens, hitTokens, evictedBlocks },
      ...this.#steps.stats(),
      generatedTokens: this.#generatedTokens,
      preemptions: numPreemptions,
    };
  }

  /** For tests, between steps. */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity(this.#savedPrompts?.blocks);
    invariant(
      this.#tasks.size === this.#scheduler.numRunning + this.#scheduler.numWaiting,
      'a sequence has no task, or a task no sequence',
    );
  }

  async #collect(promptIds: Int32Array, wanted: Wanted, options: RequestOptions, take: RowCollector['take']) {
    const sequence = new Sequence(promptIds, 0, wanted, this.limits.blockSize, options, performance.now());
    const task = new RowCollector(sequence, take, this.#host, options.signal);
    this.#start(sequence, task);
    task.begin();
    await task.done;
  }

  #start(sequence: Sequence, task: Task): void {
    if (this.#disposal !== null) throw new EngineError('DISPOSED', { what: 'the engine' });
    this.#scheduler.add(sequence);
    this.#tasks.set(sequence, task);
    this.#savedPrompts?.arrive(sequence, this.#scheduler.numRunning);
    this.#running ??= this.#run();
  }

  #failAll(error: unknown): void {
    const tasks = new Set(this.#tasks.values());
    for (const sequence of [...this.#tasks.keys()]) this.#host.remove(sequence);
    for (const task of tasks) task.fail(error);
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // requests submitted together start in one batch
    while (!this.#scheduler.isIdle) {
      try {
        const step = this.#step();
        if (step === null) await this.#savedPrompts?.news();
        else this.#update(step, await step.result); // nothing is awaited from here to the next step
      } catch (error) {
        this.#steps.failed(error);
        this.#failAll(error);
      }
    }
    this.#running = null; // before anyone who waits for a result can submit another request
    this.#savedPrompts?.saveWhenIdle();
  }

  /** Null if everyone waits for saved prompts. */
  #step(): StepInFlight | null {
    const { parts, copies, numSteps } = this.#scheduler.schedule();
    if (parts.length === 0 && this.#savedPrompts?.isReading) return null;
    invariant(parts.length > 0, 'sequences wait and none can go on');
    const { batch, rowStart } = buildBatch(parts, this.limits.blockSize, numSteps);
    for (const { sequence } of parts) this.#tasks.get(sequence)!.started(sequence);
    const logits = parts.some(({ sequence }) => sequence.wanted.kind === 'logits');
    const hidden = parts.some(({ sequence }) => sequence.wanted.kind === 'hidden');
    const copied = copies.length > 0 ? this.session.copyBlocks(Int32Array.from(copies)) : null;
    const result = this.session.step(batch, { logits, hidden });
    const whole = copied === null ? result : Promise.all([result, copied]).then(([r]) => r);
    return { parts, rowStart, numSteps, result: whole };
  }

  /** Step by step, as if each had been a call of its own. What a sequence is computed after its end does not count. */
  #update({ parts, rowStart, numSteps }: StepInFlight, result: StepResult): void {
    let counted = parts;
    for (let step = 0; step < numSteps && counted.length > 0; step++) {
      this.#steps.computed(counted.reduce((sum, { numTokens }) => sum + numTokens, 0));
      parts.forEach(({ sequence, numTokens }, i) => {
        const task = this.#tasks.get(sequence);
        if (task === undefined) return; // cancelled while the step ran, or at its end
        this.#scheduler.advance(sequence, numTokens);
        const firstRow = step * rowStart.at(-1)! + rowStart[i]!;
        const numRows = rowStart[i + 1]! - rowStart[i]!;
        if (sequence.sampling !== null) this.#generatedTokens += numRows;
        task.accept(sequence, result, firstRow, numRows);
      });
      counted = parts.filter(({ sequence }) => this.#tasks.has(sequence));
    }
    this.#steps.succeeded();
  }
}

/** A call of the session's that has begun. */
interface StepInFlight {
  readonly parts: readonly ScheduledPart[];
  readonly rowStart: Int32Array; // [numParts + 1]
  readonly numSteps: number;
  readonly result: Promise<StepResult>;
}

function allocateFloats(length: number, what: string): Float32Array {
  try {
    return new Float32Array(length);
  } catch (error) {
    throw new EngineError('OUT_OF_MEMORY', { bytes: length * Float32Array.BYTES_PER_ELEMENT, what }, { cause: error });
  }
}
