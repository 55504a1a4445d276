import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { EngineError } from '../base/errors.js';
import { besideBundle, packageFile, packagePlaces } from '../base/package-files.js';
import type { Backend, Batch, SamplingInputs, Session, StepResult, Want } from './backend.js';
import type { Buffer } from './op.js';
import type { Plan } from './plan.js';
import type { ReferenceOptions } from './reference.js';
import { type ReferenceAnswer, type ReferenceRequest, rebuildError } from './reference-messages.js';
import { sampleRows } from './reference-sampling.js';

/**
 * The reference as a backend: the interpreter of reference.ts in a worker thread of its own, so that a step never blocks
 * the event loop. Needs nothing but Node.
 */
export function referenceBackend(options: ReferenceOptions = {}): Backend {
  return {
    name: 'reference',
    async load(plan, weights, limits, signal) {
      const thread = new ReferenceThread();
      try {
        await thread.load({ kind: 'load', plan, weights, limits, options }, signal);
      } catch (error) {
        await thread.stop();
        throw error;
      }
      return new ReferenceSession(thread, plan);
    },
  };
}

const REFERENCE_WORKER = 'dist/backend/reference-worker.js';

class ReferenceSession implements Session {
  readonly maxSteps = 1;
  readonly #thread: ReferenceThread;
  readonly #vocabSize: number;
  #disposal: Promise<void> | null = null;

  constructor(thread: ReferenceThread, plan: Plan) {
    this.#thread = thread;
    this.#vocabSize = plan.logits.width;
  }

  async step(batch: Batch, want: Want = {}): Promise<StepResult> {
    this.#checkUsable();
    return (await this.#thread.request({ kind: 'step', batch, want })) as StepResult;
  }

  async copyBlocks(pairs: Int32Array): Promise<void> {
    this.#checkUsable();
    await this.#thread.request({ kind: 'copyBlocks', pairs });
  }

  async saveBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.#checkUsable();
    await this.#thread.request({ kind: 'saveBlocks', path, blocks, label });
  }

  async loadBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void> {
    this.#checkUsable();
    await this.#thread.request({ kind: 'loadBlocks', path, blocks, label });
  }

  sample(logits: Float32Array, positions: Int32Array, inputs: SamplingInputs): StepResult {
    this.#checkUsable();
    const vocabSize = this.#vocabSize;
    return sampleRows(inputs, positions, vocabSize, (_, row) =>
      logits.subarray(row * vocabSize, (row + 1) * vocabSize),
    );
  }

  async read(buffer: Buffer): Promise<Float32Array> {
    this.#checkUsable();
    return (await this.#thread.request({ kind: 'read', buffer })) as Float32Array;
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#thread.drain().then(() => this.#thread.stop());
    return this.#disposal;
  }

  #checkUsable(): void {
    if (this.#disposal) throw new EngineError('DISPOSED', { what: 'the session' });
  }
}

type Answer = (ReferenceAnswer & { kind: 'value' })['value'];

interface PendingRequest {
  readonly resolve: (value: Answer) => void;
  readonly reject: (error: EngineError) => void;
}

/** The worker thread of one session. Requests are answered in the order in which they were made. */
class ReferenceThread {
  readonly #worker = new Worker(workerPath());
  readonly #pending: PendingRequest[] = [];
  #last: Promise<unknown> = Promise.resolve();
  /** Why the thread cannot answer any more. */
  #failure: EngineError | null = null;

  constructor() {
    this.#worker.on('message', (answer: ReferenceAnswer) => {
      const request = this.#pending.shift();
      if (this.#pending.length === 0) this.#worker.unref();
      if (answer.kind === 'error') request?.reject(rebuildError(answer));
      else request?.resolve(answer.value);
    });
    this.#worker.on('error', (error) => {
      this.#fail(new EngineError('INTERNAL', { problem: `the reference worker failed: ${error.message}` }));
    });
    this.#worker.on('exit', () => {
      this.#fail(new EngineError('INTERNAL', { problem: 'the reference worker stopped' }));
    });
    this.#worker.unref();
  }

  /** Loads the plan; on abort the thread is stopped wherever it is, and the promise rejects with ABORTED. */
  async load(request: ReferenceRequest & { kind: 'load' }, signal: AbortSignal | undefined): Promise<void> {
    const aborted = (): EngineError => new EngineError('ABORTED', {}, { cause: signal?.reason });
    if (signal?.aborted) throw aborted();
    const onAbort = (): void => this.#fail(aborted());
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await this.request(request);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  request(message: ReferenceRequest): Promise<Answer> {
    if (this.#failure) return Promise.reject(this.#failure);
    const promise = new Promise<Answer>((resolve, reject) => {
      this.#worker.postMessage(message); // copies typed arrays now
      this.#worker.ref(); // an idle session does not keep the process alive, a step does
      this.#pending.push({ resolve, reject });
    });
    this.#last = promise.catch(() => undefined);
    return promise;
  }

  /** Waits for the requests made so far. */
  async drain(): Promise<void> {
    await this.#last;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(error: EngineError): void {
    this.#failure ??= error;
    for (const request of this.#pending.splice(0)) request.reject(error);
  }
}

/** The compiled file, when run from sources too. Beside a bundle it has the ending that suits the bundle's format. */
function workerPath(): string {
  const besides = ['reference-worker.mjs', 'reference-worker.cjs'].flatMap(besideBundle);
  const path = packageFile(REFERENCE_WORKER) ?? besides.find((place) => existsSync(place));
  if (path !== undefined) return path;
  const places = packagePlaces(REFERENCE_WORKER).join(' nor at ');
  const reason = `its worker is not at ${places}; run npm run build:ts, or put reference-worker.js beside the bundle`;
  throw new EngineError('BACKEND_UNAVAILABLE', { backend: 'reference', reason });
}
