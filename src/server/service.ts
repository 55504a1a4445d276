import { createHash } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { EngineError } from '../base/errors.js';
import type { ServedModel } from '../serving/served-model.js';
import { Activity } from './activity.js';
import { apiError } from './api-error.js';
import { resolveLimits, type ServerLimits } from './limits.js';
import { observe } from './observations.js';
import type { RequestObserver, RequestStart } from './observer.js';
import { RequestScope } from './request-scope.js';

export interface ServiceOptions {
  readonly model: Promise<ServedModel>;
  readonly modelName: string;
  readonly aliases?: readonly string[];
  readonly limits?: Partial<ServerLimits>;
  readonly observers?: readonly RequestObserver[];
}

/** Steps that fail in a row before the engine counts as broken; a device that is lost is so at once. */
const MAX_FAILED_STEPS = 5;

/** The model behind the routes, and the requests that it works on. */
export class Service {
  readonly limits: ServerLimits;
  readonly activity: Activity;
  readonly modelName: string;
  /** All names that requests may use. */
  readonly modelNames: readonly string[];
  /** Tells clients which configuration has answered. */
  readonly fingerprint: string;
  /** Seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);
  readonly #observers: readonly RequestObserver[];
  #model: ServedModel | EngineError = new EngineError('MODEL_LOADING', {});

  constructor(options: ServiceOptions) {
    this.limits = resolveLimits(options.limits);
    this.activity = new Activity(this.limits.requestsPerKey);
    this.modelName = options.modelName;
    this.modelNames = [...new Set([options.modelName, ...(options.aliases ?? [])])];
    this.fingerprint = `fp_${createHash('sha256').update(options.modelName).digest('hex').slice(0, 10)}`;
    this.#observers = options.observers ?? [];
    options.model.then(
      (model) => {
        this.#model = model;
      },
      (error: unknown) => {
        const reason = reasonOf(error, this.modelName);
        this.#model = new EngineError('MODEL_UNAVAILABLE', { reason }, { cause: error });
      },
    );
  }

  /** Throws SHUTTING_DOWN, MODEL_LOADING, MODEL_UNAVAILABLE. */
  get model(): ServedModel {
    if (this.activity.draining) throw new EngineError('SHUTTING_DOWN', {});
    if (this.#model instanceof EngineError) throw this.#model;
    return this.#model;
  }

  /** Throws what `model` throws, and ENGINE_FAILING. Requests are taken all the same: one that succeeds ends it. */
  checkHealth(): void {
    const { failing } = this.model.stats();
    if (failing === null) return;
    const { steps, lastError } = failing;
    const isLost = lastError instanceof EngineError && lastError.code === 'DEVICE_FAILED';
    if (!isLost && steps < MAX_FAILED_STEPS) return;
    // An exception that nobody foresaw may quote anything.
    const reason =
      lastError instanceof EngineError ? reasonOf(lastError, this.modelName) : 'an error that its log shows';
    throw new EngineError('ENGINE_FAILING', { steps, reason }, { cause: lastError });
  }

  /** Throws MODEL_UNKNOWN. A request that names no model means the only one there is. */
  checkModel(name: string | undefined): void {
    if (name === undefined || this.modelNames.includes(name)) return;
    throw new EngineError('MODEL_UNKNOWN', { model: name, served: this.modelNames });
  }

  /** Throws PROMPT_TEXT_TOO_LONG for texts that no context of this model can hold, before any time is spent on them. */
  checkLength(texts: unknown): void {
    const { contextSize } = this.model;
    const limit = contextSize * this.limits.textPerToken;
    const characters = lengthOf(texts);
    if (characters > limit) throw new EngineError('PROMPT_TEXT_TOO_LONG', { characters, limit, contextSize });
  }

  /**
   * Runs a request's work for the engine: observed, within its deadline, given up as soon as the client hangs up.
   * Resolves to what is to be sent, or to undefined where the work has answered itself or nobody is there any more.
   */
  async work<T extends object | undefined>(
    request: FastifyRequest,
    reply: FastifyReply,
    start: Pick<RequestStart, 'operation' | 'stream' | 'parameters'>,
    work: (scope: RequestScope, model: ServedModel) => Promise<T>,
  ): Promise<T | undefined> {
    const observation = observe(
      this.#observers,
      { requestId: request.id, model: this.modelName, traceHeaders: request.headers, ...start },
      request.log,
    );
    const scope = new RequestScope(request.id, request.tenant, observation, this.limits.deadlineMs);
    const { raw } = reply;
    const { socket } = request.raw;
    const hungUp = () => {
      if (!raw.writableFinished) scope.abort(new EngineError('ABORTED', {}));
    };
    // Node.js tells a response that its connection is gone only once it is its turn: several requests may have been sent
    // at once on one connection, and their responses wait for each other.
    const hungUpBeforeTurn = () => {
      if (raw.socket === null) raw.destroy().emit('close');
    };
    raw.once('close', hungUp);
    socket.setMaxListeners(0).once('close', hungUpBeforeTurn);
    try {
      this.activity.begin(scope);
      const answer = await work(scope, this.model);
      scope.end(200);
      return answer;
    } catch (thrown) {
      // Whatever the engine throws once it has been told to end, the reason is ours: the deadline, or a client that left.
      const error = scope.signal.aborted ? scope.signal.reason : thrown;
      const { status } = apiError(error, this.modelName);
      scope.end(status, error);
      if (!reply.sent && !raw.destroyed) throw error;
      if (status === 500) request.log.error({ err: error }, 'a request failed');
      if (!reply.sent) reply.hijack(); // nobody is there to be answered
      return undefined;
    } finally {
      raw.off('close', hungUp);
      socket.off('close', hungUpBeforeTurn);
      this.activity.end(scope);
    }
  }
}

/** Whoever asks /health needs no key, so where the model's file lies is left out. */
function reasonOf(error: unknown, modelName: string): string {
  if (error instanceof EngineError) return apiError(error, modelName).body.error.message;
  return error instanceof Error ? error.message : String(error);
}

/** Of all strings in a value that was JSON, in UTF-16 code units; no deeper than a body may nest. */
function lengthOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.values(value).reduce<number>((sum, part) => sum + lengthOf(part), 0);
}
