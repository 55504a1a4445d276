import { randomUUID } from 'node:crypto';
import type { CompletionEvent, Outcome, TokenLogprobs, Usage } from '../serving/completer.js';

/** One whole answer, put together from its events. */
export class Answer {
  text = '';
  readonly tokenIds: number[] = [];
  readonly logprobs: TokenLogprobs[] = [];
  outcome: Outcome | undefined;

  add(event: CompletionEvent): void {
    this.text += event.text;
    for (const id of event.tokenIds) this.tokenIds.push(id);
    for (const token of event.logprobs ?? []) this.logprobs.push(token);
    this.outcome ??= event.outcome;
  }
}

/** What all parts of a response share. */
export interface ResponseHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

export function responseHead(prefix: 'chatcmpl' | 'cmpl', model: string, fingerprint: string): ResponseHead {
  const id = `${prefix}-${randomUUID().replaceAll('-', '')}`;
  return { id, created: Math.floor(Date.now() / 1000), model, system_fingerprint: fingerprint };
}

/** How answers look in one of OpenAI's APIs. Events are server-sent ones, whole: `data: …` and an empty line. */
export interface AnswerStyle {
  /** Before a choice's first token; may be empty. */
  opening(choice: number): string;
  event(choice: number, event: CompletionEvent): string;
  usage(usage: Usage): string;
  whole(answers: readonly Answer[], usage: Usage): object;
}

export function usageFields({ promptTokens, completionTokens, cachedTokens }: Usage) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
