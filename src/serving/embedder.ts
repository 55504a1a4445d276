import { setMaxListeners } from 'node:events';
import { EngineError } from '../base/errors.js';
import type { PromptRequest } from './completer.js';

/** How the vectors of a text's tokens become one: their mean, or the last token's. */
export type Pooling = 'mean' | 'last';

/** A request for vectors. */
export interface EmbeddingRequest {
  /** Texts, or token ids used as they are. At least one, at most 2,048. */
  readonly inputs: readonly (string | ArrayLike<number>)[];
  /** Default `mean`. */
  readonly pooling?: Pooling | undefined;
  /** Keep this many of the first dimensions, then normalise again. Default: all of them. */
  readonly dimensions?: number | undefined;
  readonly tenant?: string | undefined;
  /** Rejects with ABORTED; memory is free within one step. */
  readonly signal?: AbortSignal | undefined;
}

export interface Embeddings {
  /** One for each input, L2-normalised, [hiddenSize] or [dimensions]. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
}

/** Texts in, vectors out. */
export interface Embedder {
  embed(request: EmbeddingRequest): Promise<Embeddings>;
}

/** What an embedder needs of the engine loop. */
export interface PoolingLoop {
  readonly limits: { readonly contextSize: number };
  /** [hiddenSize], the last norm's output, pooled over a prompt's tokens; not normalised. */
  pooled(
    promptIds: Int32Array,
    pooling: Pooling,
    options: { readonly tenant?: string | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<Float32Array>;
}

/** What an embedder needs of a completer: the same text is the same tokens, whatever they are for. */
export interface PromptReader {
  readPrompt(request: PromptRequest, limit: number, signal: AbortSignal | undefined): Int32Array | Promise<Int32Array>;
}

const MAX_INPUTS = 2048;
/** Inputs in the loop at once: they fill its steps, and leave room for other requests. */
const MAX_IN_FLIGHT = 64;
/** Milliseconds of tokenising between two looks at the event loop. */
const MAX_TOKENISING = 3;

/** Vectors of texts from a decoder model, batched by the engine loop with everything else that it runs. */
export class TextEmbedder implements Embedder {
  constructor(
    readonly loop: PoolingLoop,
    readonly prompts: PromptReader,
    readonly hiddenSize: number,
  ) {}

  /**
   * One vector for each input, in their order. Nothing is computed unless all inputs are valid. Throws OPTION_INVALID,
   * PROMPT_EMPTY, PROMPT_TOO_LONG, TOKEN_ID_INVALID, TOKENIZER_MISSING, EMBEDDING_INVALID, QUEUE_FULL,
   * DISPOSED, ABORTED.
   */
  async embed({ inputs, pooling = 'mean', dimensions, tenant, signal }: EmbeddingRequest): Promise<Embeddings> {
    checkInputs(inputs);
    if (pooling !== 'mean' && pooling !== 'last') throw invalid('pooling', pooling, 'one of mean, last');
    const size = this.#size(dimensions);
    const prompts = await this.#promptsOf(inputs, signal);
    const pooled = await this.#pooled(prompts, pooling, tenant, signal);
    return {
      vectors: pooled.map((vector, input) => normalised(vector.subarray(0, size), input)),
      promptTokens: prompts.reduce((sum, { length }) => sum + length, 0),
    };
  }

  /**
   * Models trained for it hold most of a text's meaning in the first dimensions (Matryoshka representations, arXiv
   * 2205.13147); of others, fewer dimensions are merely fewer.
   */
  #size(dimensions = this.hiddenSize): number {
    if (Number.isInteger(dimensions) && dimensions >= 1 && dimensions <= this.hiddenSize) return dimensions;
    throw invalid('dimensions', dimensions, `a whole number from 1 to ${this.hiddenSize}, the model's own`);
  }

  async #promptsOf(inputs: EmbeddingRequest['inputs'], signal: AbortSignal | undefined): Promise<Int32Array[]> {
    const prompts: Int32Array[] = [];
    let started = performance.now();
    for (const [index, input] of inputs.entries()) {
      if (performance.now() - started > MAX_TOKENISING) {
        await new Promise(setImmediate); // other requests' events come in between
        started = performance.now();
      }
      if (signal?.aborted) throw new EngineError('ABORTED', {});
      const request = typeof input === 'string' ? { prompt: input } : { tokenIds: input };
      try {
        const read = this.prompts.readPrompt(request, this.loop.limits.contextSize, signal);
        if (read instanceof Promise) {
          prompts.push(await read);
          started = performance.now();
        } else {
          prompts.push(read);
        }
      } catch (error) {
        throw ofInput(error, index);
      }
    }
    return prompts;
  }

  /**
   * When one fails, the others are cancelled, and nothing of them runs on when this rejects. A full queue is a failure
   * only if none of them is in it: otherwise those that are take turns.
   */
  async #pooled(
    prompts: readonly Int32Array[],
    pooling: Pooling,
    tenant: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array[]> {
    const vectors: Float32Array[] = [];
    const failed = new AbortController();
    const both = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
    setMaxListeners(MAX_IN_FLIGHT, both); // one for each input in the loop
    const options = { tenant, signal: both };
    const pending = [...prompts.keys()];
    let inFlight = 0;
    const lane = async () => {
      for (let index = pending.shift(); index !== undefined; index = pending.shift()) {
        inFlight++;
        try {
          vectors[index] = await this.loop.pooled(prompts[index]!, pooling, options);
        } catch (error) {
          if (!(error instanceof EngineError && error.code === 'QUEUE_FULL' && inFlight > 1)) throw error;
          pending.unshift(index); // for another lane
          return;
        } finally {
          inFlight--;
        }
      }
    };
    const lanes = Array.from({ length: Math.min(MAX_IN_FLIGHT, prompts.length) }, lane);
    try {
      await Promise.all(lanes);
    } catch (error) {
      failed.abort();
      await Promise.allSettled(lanes);
      throw error;
    }
    return vectors;
  }
}

function checkInputs(inputs: EmbeddingRequest['inputs']): void {
  if (!Array.isArray(inputs) || inputs.length < 1 || inputs.length > MAX_INPUTS) {
    throw invalid('inputs', inputs, `a list of 1 to ${MAX_INPUTS} inputs`);
  }
  for (const [index, input] of inputs.entries()) {
    if (typeof input === 'string' || Array.isArray(input) || ArrayBuffer.isView(input)) continue;
    throw invalid(`inputs[${index}]`, input, 'a text or a list of token ids');
  }
}

/** Divided by its length; a vector of zeros has no direction and stays as it is. */
function normalised(vector: Float32Array, input: number): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)); // in double precision
  if (!Number.isFinite(length)) throw new EngineError('EMBEDDING_INVALID', { input });
  return length === 0 ? vector.slice() : vector.map((value) => value / length);
}

/** The same error, naming the input that it is about. */
function ofInput(error: unknown, input: number): unknown {
  if (!(error instanceof EngineError)) return error;
  const known: EngineError = error;
  return new EngineError(known.code, { ...known.parameters, input }, { cause: error });
}

function invalid(option: string, value: unknown, expected: string): EngineError {
  return new EngineError('OPTION_INVALID', { option, value, expected });
}
