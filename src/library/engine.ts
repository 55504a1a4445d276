import { basename } from 'node:path';
import type { Session } from '../backend/backend.js';
import { EngineError } from '../base/errors.js';
import { EngineLoop } from '../engine/engine-loop.js';
import { openModel } from '../formats/hub.js';
import { loadModel } from '../model/load.js';
import {
  type Completion,
  type CompletionEvent,
  type CompletionRequest,
  collect,
  type PromptRequest,
  TextCompleter,
  unlessAborted,
} from '../serving/completer.js';
import { type EmbeddingRequest, type Embeddings, TextEmbedder } from '../serving/embedder.js';
import type { EngineStats, ServedModel } from '../serving/served-model.js';
import type { ChatTemplate } from '../tokenizer/chat-template.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { chooseBackend } from './choose-backend.js';
import { requireEmbeddedModel } from './embedded-model.js';
import { type LoadOptions, loopOptions, sessionLimits, typesAtLoad } from './load-options.js';
import { chatTemplateOf } from './open-chat-template.js';
import { tokenizerOf } from './open-tokenizer.js';
import { promptCacheFolder, savedPrompts } from './prompt-cache.js';

/** What was loaded. */
export interface ModelInfo {
  /** File or folder name. */
  readonly name: string;
  readonly path: string;
  readonly architecture: string;
  readonly vocabSize: number;
  /** Tokens the model was made for. */
  readonly contextLength: number;
}

/**
 * A loaded model. Any number of requests may run at once; they share batches and get the tokens they would get alone.
 *
 *     await using engine = await Engine.load({ model: 'model.gguf' });
 *     for await (const { text } of engine.generate({ prompt: 'Once upon a time' })) process.stdout.write(text);
 */
export class Engine implements ServedModel, AsyncDisposable {
  readonly #completer: TextCompleter;
  readonly #embedder: TextEmbedder;
  readonly #loop: EngineLoop;

  private constructor(
    readonly model: ModelInfo,
    /** What runs it, with the instruction set: `native-cpu:avx2`, `reference`. */
    readonly backend: string,
    /** With backend `auto`: why the native backend is not used; null if it is. */
    readonly fallbackReason: string | null,
    /** Milliseconds. */
    readonly loadMs: number,
    loop: EngineLoop,
    tokenizer: Tokenizer | null,
    chatTemplate: ChatTemplate | null,
  ) {
    this.#loop = loop;
    this.#completer = new TextCompleter(loop, tokenizer, chatTemplate, model.path);
    this.#embedder = new TextEmbedder(loop, this.#completer, loop.options.hiddenSize);
  }

  /**
   * Loads a model. Throws for wrong options (OPTION_INVALID), files (FILE_NOT_FOUND, FORMAT_INVALID, …), models
   * (ARCHITECTURE_UNSUPPORTED, CONFIG_INVALID, TENSOR_MISSING, …), a prompt cache that cannot be written to
   * (FILE_UNWRITABLE), too little memory (OUT_OF_MEMORY) and an aborted signal (ABORTED).
   */
  static async load(options: LoadOptions = {}): Promise<Engine> {
    const start = performance.now();
    if (options.signal?.aborted) throw new EngineError('ABORTED', {});
    const path = options.model ?? requireEmbeddedModel();
    const { backend, fallbackReason, activations } = chooseBackend(options);
    const quantise = typesAtLoad(options);
    const source = await openModel(path);
    const model = loadModel(source, { activations, quantise });
    const { config, plan, weights } = model;
    const limits = sessionLimits(options, config);
    const forLoop = loopOptions(options, config);
    const folder = promptCacheFolder(options);
    const [session, { tokenizer, chatTemplate, saved }] = await beside(
      (signal) => backend.load(plan, weights, limits, signal),
      () => {
        const tokenizer = tokenizerOf(source);
        const chatTemplate = chatTemplateOf(source, tokenizer, options.chatTemplate);
        return { tokenizer, chatTemplate, saved: folder && savedPrompts(folder, model, limits, backend.name) };
      },
      options.signal,
    );
    const loop = new EngineLoop(session, limits, { ...forLoop, savedPrompts: saved });
    const { architecture, vocabSize, contextLength } = config;
    const info = { name: basename(source.path), path: source.path, architecture, vocabSize, contextLength };
    return new Engine(info, backend.name, fallbackReason, performance.now() - start, loop, tokenizer, chatTemplate);
  }

  /** Tokens of prompt and answer together. */
  get contextSize(): number {
    return this.#loop.limits.contextSize;
  }

  /** Throws TOKENIZER_MISSING for a model that came without one. */
  get tokenizer(): Tokenizer {
    const { tokenizer } = this.#completer;
    if (tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.model.path });
    return tokenizer;
  }

  /** How the model wants conversations to be written, or null if it came without a chat template. */
  get chatTemplate(): ChatTemplate | null {
    return this.#completer.chatTemplate;
  }

  /**
   * The answer as it is generated. The last event carries the outcome: finish reason, usage, timings. Leaving the loop
   * or aborting the signal frees the request's memory within one step.
   */
  generate(request: CompletionRequest): AsyncGenerator<CompletionEvent, void> {
    return this.#completer.generate(request);
  }

  /** The whole answer. `onEvent` sees every event first, and is waited for. */
  async complete(
    request: CompletionRequest,
    onEvent?: (event: CompletionEvent) => void | Promise<void>,
  ): Promise<Completion> {
    if (request.n !== undefined && request.n !== 1) {
      throw new EngineError('OPTION_INVALID', { option: 'n', value: request.n, expected: '1, or completeAll()' });
    }
    return (await this.completeAll(request, onEvent))[0]!;
  }

  /** All `n` answers, whole, in order of their index. */
  async completeAll(
    request: CompletionRequest,
    onEvent?: (event: CompletionEvent) => void | Promise<void>,
  ): Promise<Completion[]> {
    const tokenIds = await unlessAborted(
      this.#completer.readPrompt(request, undefined, request.signal),
      request.signal,
    );
    const { prompt: _prompt, messages: _messages, ...rest } = request;
    const answers = await collect(this.generate(tokenIds === null ? request : { ...rest, tokenIds }), onEvent);
    return answers.map((answer) => ({ ...answer, promptTokenIds: [...(tokenIds ?? [])] }));
  }

  /**
   * Vectors of texts, [hiddenSize] each, L2-normalised. With a request in place of texts, pooling and dimensions can be
   * chosen, and the answer counts tokens too. Throws PROMPT_EMPTY, PROMPT_TOO_LONG, ABORTED, …
   */
  embed(texts: readonly string[]): Promise<readonly Float32Array[]>;
  embed(request: EmbeddingRequest): Promise<Embeddings>;
  async embed(what: readonly string[] | EmbeddingRequest): Promise<readonly Float32Array[] | Embeddings> {
    if ('inputs' in what) return this.#embedder.embed(what);
    return (await this.#embedder.embed({ inputs: what })).vectors;
  }

  /** Token ids of a request's prompt, checked. Throws what generate() would throw for it. */
  promptIds(request: PromptRequest): Int32Array {
    return this.#completer.promptIds(request);
  }

  /** The same without holding the event loop: what is short is there at once. Throws ABORTED too. */
  readPrompt(request: PromptRequest, signal?: AbortSignal): Int32Array | Promise<Int32Array> {
    return this.#completer.readPrompt(request, undefined, signal);
  }

  /** The text a conversation becomes. Throws CHAT_TEMPLATE_MISSING and what the template throws. */
  applyTemplate(request: PromptRequest): string {
    return this.#completer.applyTemplate(request);
  }

  /** Token ids of a text, with the tokens that the model expects around it unless told otherwise. Throws TOKENIZER_MISSING. */
  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Int32Array {
    return this.tokenizer.encode(text, options);
  }

  /** The same without holding the event loop: what is short is there at once. Throws ABORTED too. */
  readText(
    text: string,
    options: { readonly addSpecialTokens?: boolean } = {},
    signal?: AbortSignal,
  ): Int32Array | Promise<Int32Array> {
    return this.#completer.readText(text, options, signal);
  }

  /** Text of token ids. Throws TOKENIZER_MISSING, TOKEN_ID_INVALID. */
  decode(tokenIds: ArrayLike<number>): string {
    return this.tokenizer.decode(tokenIds);
  }

  /** What the engine is doing, and has done since it was loaded. */
  stats(): EngineStats {
    return this.#loop.stats();
  }

  /** Logits after each token, [tokenIds.length, vocabSize] row-major. Throws TOKEN_ID_INVALID, PROMPT_TOO_LONG, OUT_OF_MEMORY, ABORTED. */
  async logits(tokenIds: ArrayLike<number>, options: { readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
    return this.#loop.logits(this.#completer.promptIds({ tokenIds }, this.contextSize), options);
  }

  /** Ends all requests with DISPOSED, saves prompts if there is a folder for them, and frees everything. A second call does nothing. */
  async dispose(): Promise<void> {
    await this.#loop.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** Loads a session in its own threads, and makes something in this one meanwhile. If that fails, loading ends. */
async function beside<T>(
  load: (signal: AbortSignal) => Promise<Session>,
  make: () => T,
  signal: AbortSignal | undefined,
): Promise<[Session, T]> {
  const failed = new AbortController();
  const loading = load(signal ? AbortSignal.any([signal, failed.signal]) : failed.signal);
  let made: T;
  try {
    made = make();
  } catch (error) {
    failed.abort();
    await loading.then(
      (session) => session.dispose(),
      () => undefined, // `error` came first
    );
    throw error;
  }
  return [await loading, made];
}
