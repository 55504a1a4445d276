import type { CompletionEvent, Usage } from '../serving/completer.js';
import { type Answer, type AnswerStyle, type ResponseHead, usageFields } from './answer.js';
import { completionLogprobs } from './logprobs.js';

export interface CompletionStyleOptions {
  readonly logprobs: boolean;
  readonly includeUsage: boolean;
  /** Answers to each prompt. */
  readonly n: number;
  /** Texts of the prompts, where they are to stand before the answers; else null. */
  readonly echo: readonly string[] | null;
  /** [prompts], vLLM's return_token_ids; null if not asked for. */
  readonly promptIds: readonly (readonly number[])[] | null;
}

/** text_completion, whole and streamed. Choice p · n + i is answer i to prompt p. */
export class CompletionStyle implements AnswerStyle {
  readonly #start: string;
  readonly #end: string;
  readonly #offsets = new Map<number, number>(); // by choice: where its next token begins in its text

  constructor(
    readonly head: ResponseHead,
    readonly options: CompletionStyleOptions,
  ) {
    const { id, created, model, system_fingerprint } = head;
    const fields = JSON.stringify({ id, object: 'text_completion', created, model, system_fingerprint });
    this.#start = `data: ${fields.slice(0, -1)},"choices":[{"index":`;
    this.#end = `}]${options.includeUsage ? ',"usage":null' : ''}}\n\n`;
  }

  opening(choice: number): string {
    const { echo, promptIds, n } = this.options;
    if (echo === null && promptIds === null) return '';
    const prompt = Math.floor(choice / n);
    const ids = promptIds === null ? '' : `,"prompt_token_ids":${JSON.stringify(promptIds[prompt])}`;
    return this.#chunk(choice, echo?.[prompt] ?? '', 'null', 'null', ids);
  }

  event(choice: number, { text, tokenIds, logprobs = [], outcome }: CompletionEvent): string {
    const withIds = this.options.promptIds !== null;
    if (text === '' && outcome === undefined && !(tokenIds.length > 0 && (this.options.logprobs || withIds))) return '';
    let tokens = 'null';
    if (this.options.logprobs) {
      const offset = this.#offsets.get(choice) ?? this.#echoOf(choice).length;
      this.#offsets.set(
        choice,
        logprobs.reduce((end, { token }) => end + token.length, offset),
      );
      tokens = JSON.stringify(completionLogprobs(logprobs, offset));
    }
    const ids = withIds ? `,"token_ids":${JSON.stringify(tokenIds)}` : '';
    return this.#chunk(choice, text, tokens, JSON.stringify(outcome?.finishReason ?? null), ids);
  }

  usage(usage: Usage): string {
    const chunk = { ...this.head, object: 'text_completion', choices: [], usage: usageFields(usage) };
    return `data: ${JSON.stringify(chunk)}\n\n`;
  }

  whole(answers: readonly Answer[], usage: Usage): object {
    const { promptIds, n } = this.options;
    const choices = answers.map(({ text, tokenIds, logprobs, outcome }, index) => {
      const echo = this.#echoOf(index);
      return {
        index,
        text: echo + text,
        logprobs: this.options.logprobs ? completionLogprobs(logprobs, echo.length) : null,
        finish_reason: outcome!.finishReason,
        ...(promptIds !== null && { token_ids: tokenIds, prompt_token_ids: promptIds[Math.floor(index / n)] }),
      };
    });
    return { ...this.head, object: 'text_completion', choices, usage: usageFields(usage) };
  }

  #echoOf(choice: number): string {
    return this.options.echo?.[Math.floor(choice / this.options.n)] ?? '';
  }

  #chunk(choice: number, text: string, logprobs: string, reason: string, more: string): string {
    const fields = `"text":${JSON.stringify(text)},"logprobs":${logprobs},"finish_reason":${reason}${more}`;
    return `${this.#start}${choice},${fields}${this.#end}`;
  }
}
