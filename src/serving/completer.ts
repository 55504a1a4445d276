import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import type { EngineLoop } from '../engine/engine-loop.js';
import { resolveSampling, type SamplingOptions } from '../engine/sampler.js';
import type { FinishReason } from '../engine/sequence.js';
import type { SampledToken, TokenTimes } from '../engine/token-stream.js';
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js';
import { textsIn } from '../tokenizer/content-marks.js';
import type { EncodeOptions, Tokenizer } from '../tokenizer/tokenizer.js';
import { finish, type Work, WorkQueue } from '../tokenizer/work.js';
import { AnswerText } from './answer-text.js';
import { resolveStopStrings, StopStrings } from './stop-strings.js';

const MAX_PRIORITY = 100;
/** UTF-16 units that are tokenised at once: about a millisecond, the first time two. */
const SHORT_PROMPT = 4096;
/** Token ids. */
const CHECKED_AT_ONCE = 1 << 16;

/** A request for text. Give exactly one of `prompt`, `messages` and `tokenIds`. */
export interface CompletionRequest extends SamplingOptions {
  /** Text to continue. Special tokens written in it are ordinary text. */
  readonly prompt?: string | undefined;
  /**
   * A conversation to answer, written as the model's chat template has it. Special tokens written in it are ordinary
   * text.
   */
  readonly messages?: readonly ChatMessage[] | undefined;
  /** With messages: JSON schemas of functions that the model may call. */
  readonly tools?: readonly unknown[] | undefined;
  /** With messages: more variables of the template, such as `enable_thinking`. */
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
  /** Token ids to continue, used as they are (no beginning-of-text token is added). */
  readonly tokenIds?: ArrayLike<number> | undefined;
  /** Most tokens to generate. Default: until the context is full. */
  readonly maxTokens?: number | undefined;
  /** The answer ends before the first of these strings. */
  readonly stop?: string | readonly string[] | undefined;
  /** Go on after the model's end-of-text token. Default false. */
  readonly ignoreEos?: boolean | undefined;
  /** Answers to the same prompt, which is computed once; 1 … the sequences of a step. Default 1. */
  readonly n?: number | undefined;
  /** Who asks: tenants share the engine fairly, and none can hit another's cached prompts. Default: all are one. */
  readonly tenant?: string | undefined;
  /** Cached prompts are shared only among a tenant's requests with the same salt. */
  readonly cacheSalt?: string | undefined;
  /**
   * A whole number from −100 to 100. Within a tenant lower goes first: a request of priority p waits as if it had
   * arrived 10 · p seconds later. Default 0.
   */
  readonly priority?: number | undefined;
  /** Ends the request with finish reason `abort`; its memory is free within one step. */
  readonly signal?: AbortSignal | undefined;
}

export interface TokenLogprob {
  readonly id: number;
  readonly token: string;
  readonly logprob: number;
}

/** Log-probability of a generated token, with the most likely alternatives in descending order. */
export interface TokenLogprobs extends TokenLogprob {
  readonly top: readonly TokenLogprob[];
}

export interface Usage {
  /** Tokens. */
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens whose keys and values were found in a cache. */
  readonly cachedTokens: number;
}

export interface Timings {
  /** Milliseconds from the call until its first step began. */
  readonly queueMs: number;
  /** Time to first token, from the call: milliseconds. */
  readonly ttftMs: number;
  readonly prefillTokensPerSecond: number;
  /** Over the tokens after the first. */
  readonly decodeTokensPerSecond: number;
  readonly totalMs: number;
}

/** How a request ended. */
export interface Outcome {
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  readonly timings: Timings;
}

/** One piece of an answer: one or more tokens, and the text they complete; text never ends inside a character. */
export interface CompletionEvent {
  /** Which of the request's n answers, from 0. */
  readonly index: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** One per token, only if asked for. */
  readonly logprobs?: readonly TokenLogprobs[];
  /** Only on an answer's last event. */
  readonly outcome?: Outcome;
}

export interface Completion extends Outcome {
  readonly text: string;
  readonly promptTokenIds: readonly number[];
  readonly tokenIds: readonly number[];
  readonly logprobs?: readonly TokenLogprobs[];
}

/** What caches and guards wrap: takes a request, gives its answer as a stream. */
export interface Completer {
  generate(request: CompletionRequest): AsyncIterable<CompletionEvent>;
}

/** The fields of a request that make its prompt. */
export type PromptRequest = Pick<
  CompletionRequest,
  'prompt' | 'messages' | 'tools' | 'chatTemplateKwargs' | 'tokenIds'
>;

/** Text in, text out, on one engine loop. */
export class TextCompleter implements Completer {
  /** Long prompts on their way to become tokens. */
  readonly #reading = new WorkQueue();

  constructor(
    readonly loop: Pick<EngineLoop, 'limits' | 'vocabSize' | 'submit'>,
    readonly tokenizer: Tokenizer | null,
    readonly chatTemplate: ChatTemplate | null,
    /** What has no tokenizer or chat template, for requests that need them. */
    readonly modelPath: string,
  ) {}

  /**
   * Token ids of a request's prompt, checked. Throws PROMPT_EMPTY, PROMPT_TOO_LONG, TOKEN_ID_INVALID, TOKENIZER_MISSING,
   * CHAT_TEMPLATE_MISSING and what ChatTemplate.prompt throws, OPTION_INVALID. The default limit in tokens leaves a
   * position for the first generated token.
   */
  promptIds(request: PromptRequest, limit = this.loop.limits.contextSize - 1): Int32Array {
    return finish(this.#promptWork(request, limit));
  }

  /**
   * The same without holding the event loop: of a long prompt some pieces are read in every turn of it, and a prompt
   * that is too long is refused before the rest is read. What is short is there at once. Throws ABORTED too.
   */
  readPrompt(
    request: PromptRequest,
    limit = this.loop.limits.contextSize - 1,
    signal?: AbortSignal,
  ): Int32Array | Promise<Int32Array> {
    return isShort(request)
      ? this.promptIds(request, limit)
      : this.#reading.run(this.#promptWork(request, limit, limit), signal);
  }

  /** Token ids of a text, read as prompts are. Throws TOKENIZER_MISSING, ABORTED. */
  readText(text: string, options: EncodeOptions = {}, signal?: AbortSignal): Int32Array | Promise<Int32Array> {
    if (this.tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.modelPath });
    const work = this.tokenizer.encodeWork(text, options);
    return text.length <= SHORT_PROMPT ? finish(work) : this.#reading.run(work, signal);
  }

  /** @param enough tokens after which the rest is not read */
  *#promptWork(request: PromptRequest, limit: number, enough = Number.POSITIVE_INFINITY): Work<Int32Array> {
    const { vocabSize } = this.loop;
    const { prompt, messages, tokenIds } = request;
    if ([prompt, messages, tokenIds].filter((given) => given !== undefined).length !== 1) {
      const expected = 'exactly one of prompt, messages and token ids';
      throw new EngineError('OPTION_INVALID', { option: 'prompt', value: prompt, expected });
    }
    let ids = tokenIds;
    if (prompt !== undefined) ids = yield* this.#encode(prompt, enough);
    else if (messages !== undefined) ids = yield* this.#encodeChat(messages, request, enough);
    const { length } = ids!;
    if (length === 0) throw new EngineError('PROMPT_EMPTY', {});
    if (length > limit) {
      const isPart = tokenIds === undefined && length > enough;
      throw new EngineError('PROMPT_TOO_LONG', isPart ? { moreThan: limit, limit } : { tokens: length, limit });
    }
    for (let start = 0; start < length; start += CHECKED_AT_ONCE) {
      checkIds(ids!, start, Math.min(length, start + CHECKED_AT_ONCE), vocabSize);
      yield;
    }
    return ids instanceof Int32Array && tokenIds === undefined ? ids : Int32Array.from(ids!); // the caller's may change
  }

  /** The text a conversation becomes. Throws CHAT_TEMPLATE_MISSING and what ChatTemplate.render throws. */
  applyTemplate({ messages, tools, chatTemplateKwargs }: PromptRequest): string {
    if (this.chatTemplate === null) throw new EngineError('CHAT_TEMPLATE_MISSING', { path: this.modelPath });
    return this.chatTemplate.render(messages ?? [], { tools, variables: chatTemplateKwargs });
  }

  async *generate(request: CompletionRequest): AsyncGenerator<CompletionEvent, void> {
    const called = performance.now();
    const sampling = resolveSampling(request, this.loop.vocabSize);
    const stopStrings = resolveStopStrings(request.stop);
    const eosIds: ReadonlySet<number> = new Set(request.ignoreEos ? [] : (this.tokenizer?.eosIds ?? []));
    const n = wholeNumber('n', request.n ?? 1, 1, this.loop.limits.maxSequences);
    const priority = wholeNumber('priority', request.priority ?? 0, -MAX_PRIORITY, MAX_PRIORITY);
    const { tenant, cacheSalt, signal } = request;
    const read = this.readPrompt(request, undefined, signal);
    const promptIds = read instanceof Promise ? await unlessAborted(read, signal) : read;
    if (promptIds === null) {
      for (let index = 0; index < n; index++) yield { index, text: '', tokenIds: [], outcome: unread(called) };
      return;
    }
    const maxTokens = resolveMaxTokens(request.maxTokens, this.loop.limits.contextSize - promptIds.length);
    const answers = Array.from({ length: n }, () => {
      const decoder = this.tokenizer?.stream({ after: promptIds }) ?? null;
      return new AnswerText(decoder, new StopStrings(stopStrings), eosIds);
    });
    const standing = { tenant, cacheSalt, priority };
    const stream = this.loop.submit({ promptIds, maxTokens, sampling, stopIds: eosIds, n, ...standing, signal });

    for await (const { choice, tokens, finishReason } of stream.parts()) {
      const answer = answers[choice]!;
      if (answer.stopped) continue; // its last event was sent
      const { text, used } = answer.push(tokens);
      const outOfTokens = !answer.stopped && finishReason !== null;
      const rest = outOfTokens ? answer.flush() : '';
      if (answer.stopped && finishReason === null) stream.cancel(choice);
      const over = answer.stopped || outOfTokens;
      const usage = {
        promptTokens: promptIds.length,
        completionTokens: answer.numTokens,
        cachedTokens: stream.cachedTokens,
      };
      yield {
        index: choice,
        text: text + rest,
        tokenIds: used.map(({ id }) => id),
        ...(sampling.logprobs !== null && { logprobs: used.map((token) => this.#logprobs(token)) }),
        ...(over && {
          outcome: {
            finishReason: answer.stopped ? 'stop' : finishReason!,
            usage,
            timings: timingsOf(stream.timesOf(choice), usage, called),
          },
        }),
      };
    }
  }

  #encode(prompt: string, enough: number): Work<Int32Array> {
    if (this.tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.modelPath });
    if (prompt === '') throw new EngineError('PROMPT_EMPTY', {});
    return this.tokenizer.encodeWork(prompt, {}, enough);
  }

  *#encodeChat(
    messages: readonly ChatMessage[],
    { tools, chatTemplateKwargs }: PromptRequest,
    enough: number,
  ): Work<Int32Array> {
    if (this.chatTemplate === null) throw new EngineError('CHAT_TEMPLATE_MISSING', { path: this.modelPath });
    if (this.tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.modelPath });
    const options = { tools, variables: chatTemplateKwargs };
    const prompt = yield* this.chatTemplate.promptWork(messages, options, this.tokenizer.specialTexts);
    return yield* this.tokenizer.encodeChatWork(prompt, enough);
  }

  /** Empty for ids that have no token: models pad their vocabularies. */
  #pieceText(id: number): string {
    return this.tokenizer !== null && id < this.tokenizer.vocabSize ? this.tokenizer.pieceText(id) : '';
  }

  #logprobs(token: SampledToken): TokenLogprobs {
    const named = (id: number, logprob: number) => ({ id, token: this.#pieceText(id), logprob });
    return {
      ...named(token.id, token.logprob ?? Number.NaN),
      top: token.top.map(({ id, logprob }) => named(id, logprob)),
    };
  }
}

/** The whole answers of a stream, by index. `onEvent` sees every event first, and is waited for. */
export async function collect(
  events: AsyncIterable<CompletionEvent>,
  onEvent?: (event: CompletionEvent) => void | Promise<void>,
): Promise<Omit<Completion, 'promptTokenIds'>[]> {
  const answers: { text: string; tokenIds: number[]; logprobs: TokenLogprobs[] | null; outcome: Outcome | null }[] = [];
  for await (const event of events) {
    await onEvent?.(event);
    const answer = answers[event.index] ?? { text: '', tokenIds: [], logprobs: null, outcome: null };
    answers[event.index] = answer;
    answer.text += event.text;
    for (const id of event.tokenIds) answer.tokenIds.push(id); // as arguments, 100,000 would overflow the stack
    if (event.logprobs) {
      answer.logprobs ??= [];
      for (const token of event.logprobs) answer.logprobs.push(token);
    }
    if (event.outcome) answer.outcome = event.outcome;
  }
  return answers.map(({ text, tokenIds, logprobs, outcome }) => {
    if (outcome === null) throw new EngineError('INTERNAL', { problem: 'a stream ended without an outcome' });
    return { text, tokenIds, ...(logprobs && { logprobs }), ...outcome };
  });
}

function checkIds(tokenIds: ArrayLike<number>, start: number, end: number, vocabSize: number): void {
  for (let index = start; index < end; index++) {
    const id = tokenIds[index]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new EngineError('TOKEN_ID_INVALID', { id, index, vocabSize });
    }
  }
}

function resolveMaxTokens(maxTokens: number | undefined, room: number): number {
  // The answer ends with finish reason `length` when the context is full.
  return maxTokens === undefined ? room : Math.min(wholeNumber('maxTokens', maxTokens, 1), room);
}

/** Characters of a long prompt take time; token ids do not. */
function isShort({ prompt, messages, tools }: PromptRequest): boolean {
  if (prompt !== undefined) return prompt.length <= SHORT_PROMPT;
  if (messages === undefined) return true;
  return textsIn([messages, tools]).reduce((length, text) => length + text.length, 0) <= SHORT_PROMPT;
}

/** Null if the signal was aborted meanwhile. */
export async function unlessAborted<T>(promise: T | Promise<T>, signal: AbortSignal | undefined): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (signal?.aborted && error instanceof EngineError && error.code === 'ABORTED') return null;
    throw error;
  }
}

/** How a request ends whose prompt was not read to its end. */
function unread(called: number): Outcome {
  const ms = performance.now() - called;
  return {
    finishReason: 'abort',
    usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
    timings: { queueMs: ms, ttftMs: ms, prefillTokensPerSecond: 0, decodeTokensPerSecond: 0, totalMs: ms },
  };
}

/** @param called when the request came, in milliseconds of performance.now() */
function timingsOf(times: TokenTimes, usage: Usage, called: number): Timings {
  const end = times.finished || performance.now();
  const perSecond = (tokens: number, ms: number) => (ms > 0 && tokens > 0 ? (tokens * 1000) / ms : 0);
  const firstToken = times.firstToken || end;
  return {
    queueMs: (times.started || end) - called,
    ttftMs: firstToken - called,
    prefillTokensPerSecond: perSecond(usage.promptTokens, firstToken - (times.started || times.submitted)),
    decodeTokensPerSecond: perSecond(usage.completionTokens - 1, end - firstToken),
    totalMs: end - called,
  };
}
