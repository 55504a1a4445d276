import { EngineError } from '../base/errors.js';
import type { EngineLoop } from '../engine/engine-loop.js';
import { resolveSampling, type SamplingOptions } from '../engine/sampler.js';
import type { FinishReason } from '../engine/sequence.js';
import type { SampledToken, TokenTimes } from '../engine/token-stream.js';
import type { ChatMessage, ChatTemplate } from '../tokenizer/chat-template.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { AnswerText } from './answer-text.js';
import { resolveStopStrings, StopStrings } from './stop-strings.js';

const MAX_PRIORITY = 100;

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
  constructor(
    readonly loop: EngineLoop,
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
    const { vocabSize } = this.loop;
    const { prompt, messages, tokenIds } = request;
    if ([prompt, messages, tokenIds].filter((given) => given !== undefined).length !== 1) {
      const expected = 'exactly one of prompt, messages and token ids';
      throw new EngineError('OPTION_INVALID', { option: 'prompt', value: prompt, expected });
    }
    const ids = tokenIds ?? (prompt !== undefined ? this.#encode(prompt) : this.#encodeChat(messages!, request));
    if (ids.length === 0) throw new EngineError('PROMPT_EMPTY', {});
    if (ids.length > limit) throw new EngineError('PROMPT_TOO_LONG', { tokens: ids.length, limit });
    checkIds(ids, vocabSize);
    return Int32Array.from(ids);
  }

  /** The text a conversation becomes. Throws CHAT_TEMPLATE_MISSING and what ChatTemplate.render throws. */
  applyTemplate({ messages, tools, chatTemplateKwargs }: PromptRequest): string {
    if (this.chatTemplate === null) throw new EngineError('CHAT_TEMPLATE_MISSING', { path: this.modelPath });
    return this.chatTemplate.render(messages ?? [], { tools, variables: chatTemplateKwargs });
  }

  async *generate(request: CompletionRequest): AsyncGenerator<CompletionEvent, void> {
    const promptIds = this.promptIds(request);
    const sampling = resolveSampling(request, this.loop.vocabSize);
    const stopStrings = resolveStopStrings(request.stop);
    const eosIds: ReadonlySet<number> = new Set(request.ignoreEos ? [] : (this.tokenizer?.eosIds ?? []));
    const maxTokens = resolveMaxTokens(request.maxTokens, this.loop.limits.contextSize - promptIds.length);
    const n = wholeNumber('n', request.n ?? 1, 1, this.loop.limits.maxSequences);
    const priority = wholeNumber('priority', request.priority ?? 0, -MAX_PRIORITY, MAX_PRIORITY);
    const { tenant, cacheSalt, signal } = request;
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
            timings: timingsOf(stream.timesOf(choice), usage),
          },
        }),
      };
    }
  }

  #encode(prompt: string): Int32Array {
    if (this.tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.modelPath });
    if (prompt === '') throw new EngineError('PROMPT_EMPTY', {});
    return this.tokenizer.encode(prompt);
  }

  #encodeChat(messages: readonly ChatMessage[], { tools, chatTemplateKwargs }: PromptRequest): Int32Array {
    if (this.chatTemplate === null) throw new EngineError('CHAT_TEMPLATE_MISSING', { path: this.modelPath });
    if (this.tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: this.modelPath });
    const options = { tools, variables: chatTemplateKwargs };
    return this.tokenizer.encodeChat(this.chatTemplate.prompt(messages, options, this.tokenizer.specialTexts));
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
    answer.tokenIds.push(...event.tokenIds);
    if (event.logprobs) {
      answer.logprobs ??= [];
      answer.logprobs.push(...event.logprobs);
    }
    if (event.outcome) answer.outcome = event.outcome;
  }
  return answers.map(({ text, tokenIds, logprobs, outcome }) => {
    if (outcome === null) throw new EngineError('INTERNAL', { problem: 'a stream ended without an outcome' });
    return { text, tokenIds, ...(logprobs && { logprobs }), ...outcome };
  });
}

function checkIds(tokenIds: ArrayLike<number>, vocabSize: number): void {
  for (let index = 0; index < tokenIds.length; index++) {
    const id = tokenIds[index]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new EngineError('TOKEN_ID_INVALID', { id, index, vocabSize });
    }
  }
}

function resolveMaxTokens(maxTokens: number | undefined, room: number): number {
  // The answer ends with finish reason `length` when the context is full.
  return maxTokens === undefined
    ? room
    : Math.min(wholeNumber('maxTokens', maxTokens, 1, Number.MAX_SAFE_INTEGER), room);
}

function wholeNumber(option: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const expected = `a whole number from ${least}${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ''}`;
  throw new EngineError('OPTION_INVALID', { option, value, expected });
}

function timingsOf(times: TokenTimes, usage: Usage): Timings {
  const end = times.finished || performance.now();
  const perSecond = (tokens: number, ms: number) => (ms > 0 && tokens > 0 ? (tokens * 1000) / ms : 0);
  const firstToken = times.firstToken || end;
  return {
    queueMs: (times.started || end) - times.submitted,
    ttftMs: firstToken - times.submitted,
    prefillTokensPerSecond: perSecond(usage.promptTokens, firstToken - (times.started || times.submitted)),
    decodeTokensPerSecond: perSecond(usage.completionTokens - 1, end - firstToken),
    totalMs: end - times.submitted,
  };
}
