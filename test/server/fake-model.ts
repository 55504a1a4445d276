import { EngineError } from '../../src/base/errors.js';
import type { CompletionEvent, CompletionRequest, PromptRequest, TokenLogprobs } from '../../src/serving/completer.js';
import type { EmbeddingRequest, Embeddings } from '../../src/serving/embedder.js';
import type { EngineStats, ServedModel } from '../../src/serving/served-model.js';
import { engineStats } from './requests.js';

const VOCAB_SIZE = 1000;

/**
 * A model whose tokens are code units: every answer is `reply`, a letter an event. Prefill takes until `prefill`
 * resolves, each later token until `step` does, so that a test decides how fast it is.
 */
export class FakeModel implements ServedModel {
  readonly contextSize = 64;
  reply = 'Hello, world';
  prefill: () => Promise<unknown> = async () => undefined;
  step: () => Promise<unknown> = async () => undefined;
  /** What reading a prompt or a text waits for, as a long one would. */
  reading: (() => Promise<unknown>) | null = null;
  /** Thrown after this many events of an answer. */
  failure: { after: number; error: Error } | null = null;
  readonly requests: CompletionRequest[] = [];
  readonly embedded: EmbeddingRequest[] = [];
  running = 0;
  produced = 0;
  aborted = 0;

  async *generate(request: CompletionRequest): AsyncGenerator<CompletionEvent, void> {
    const prompt = this.#promptIds(request);
    if (request.topK === 777) throw new EngineError('OPTION_INVALID', { option: 'topK', value: 777, expected: 'less' });
    this.requests.push(request);
    this.running++;
    try {
      await abortable(this.prefill(), request.signal);
      const { n = 1, maxTokens = Number.POSITIVE_INFINITY } = request;
      const letters = [...this.reply].slice(0, maxTokens);
      for (const [i, letter] of letters.entries()) {
        if (i > 0) await abortable(this.step(), request.signal);
        for (let index = 0; index < n; index++) {
          if (this.failure !== null && i >= this.failure.after) throw this.failure.error;
          this.produced++;
          const tokenIds = [letter.charCodeAt(0)];
          const logprobs = request.logprobs === undefined ? {} : { logprobs: [logprobOf(letter, request.logprobs)] };
          yield { index, text: letter, tokenIds, ...logprobs };
        }
      }
      const finishReason = maxTokens < this.reply.length ? 'length' : 'stop';
      const usage = { promptTokens: prompt.length, completionTokens: letters.length, cachedTokens: 2 };
      const timings = { queueMs: 0, ttftMs: 1, prefillTokensPerSecond: 1, decodeTokensPerSecond: 1, totalMs: 2 };
      for (let index = 0; index < n; index++) {
        yield { index, text: '', tokenIds: [], outcome: { finishReason, usage, timings } };
      }
    } finally {
      this.running--;
      if (request.signal?.aborted) this.aborted++;
    }
  }

  async embed({ inputs, dimensions = 3, ...rest }: EmbeddingRequest): Promise<Embeddings> {
    this.embedded.push({ inputs, dimensions, ...rest });
    this.running++;
    try {
      await abortable(this.prefill(), rest.signal);
      const vectors = inputs.map(({ length }) => Float32Array.from({ length: dimensions }, (_, i) => length + i / 4));
      return { vectors, promptTokens: inputs.reduce((sum, { length }) => sum + length, 0) };
    } finally {
      this.running--;
      if (rest.signal?.aborted) this.aborted++;
    }
  }

  readPrompt(request: PromptRequest, signal?: AbortSignal): Int32Array | Promise<Int32Array> {
    return this.#read(() => this.#promptIds(request), signal);
  }

  #promptIds(request: PromptRequest): Int32Array {
    const { prompt, tokenIds } = request;
    const ids = tokenIds === undefined ? textIds(prompt ?? this.applyTemplate(request)) : Int32Array.from(tokenIds);
    const limit = this.contextSize - 1;
    if (ids.length === 0) throw new EngineError('PROMPT_EMPTY', {});
    if (ids.length > limit) throw new EngineError('PROMPT_TOO_LONG', { tokens: ids.length, limit });
    this.#check(ids);
    return ids;
  }

  applyTemplate({ messages, chatTemplateKwargs = {} }: PromptRequest): string {
    if (messages!.some(({ content }) => content === 'no template')) {
      throw new EngineError('CHAT_TEMPLATE_MISSING', { path: '/secret/place/model.gguf' });
    }
    const kwargs = Object.entries(chatTemplateKwargs).map(([name, value]) => `${name}=${value};`);
    return kwargs.join('') + messages!.map(({ role, content }) => `${role[0]}:${content}|`).join('');
  }

  readText(text: string, { addSpecialTokens = true } = {}, signal?: AbortSignal): Int32Array | Promise<Int32Array> {
    return this.#read(() => textIds(text, addSpecialTokens), signal);
  }

  #read(ids: () => Int32Array, signal: AbortSignal | undefined): Int32Array | Promise<Int32Array> {
    if (this.reading === null) return ids();
    this.running++;
    return abortable(this.reading(), signal)
      .then(ids)
      .finally(() => {
        this.running--;
        if (signal?.aborted) this.aborted++;
      });
  }

  decode(tokenIds: ArrayLike<number>): string {
    this.#check(tokenIds);
    return String.fromCharCode(...Array.from(tokenIds));
  }

  stats(): EngineStats {
    return engineStats;
  }

  #check(ids: ArrayLike<number>): void {
    Array.from(ids).forEach((id, index) => {
      if (id >= VOCAB_SIZE) throw new EngineError('TOKEN_ID_INVALID', { id, index, vocabSize: VOCAB_SIZE });
    });
  }
}

function textIds(text: string, addSpecialTokens = true): Int32Array {
  const codes = Array.from(text, (letter) => letter.charCodeAt(0) % VOCAB_SIZE);
  return Int32Array.from(addSpecialTokens ? [1, ...codes] : codes);
}

function logprobOf(letter: string, count: number): TokenLogprobs {
  const top = Array.from({ length: count }, (_, i) => {
    const token = i === 0 ? letter : `${letter}${i}`;
    return { id: i, token, logprob: i === 3 ? Number.NEGATIVE_INFINITY : -0.5 - i };
  });
  return { id: letter.charCodeAt(0), token: letter, logprob: -0.5, top };
}

function abortable(promise: Promise<unknown>, signal: AbortSignal | undefined): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new EngineError('ABORTED', {}));
    if (signal?.aborted) fail();
    signal?.addEventListener('abort', fail, { once: true });
    promise.then(resolve, reject).finally(() => signal?.removeEventListener('abort', fail));
  });
}
