import type { CompletionEvent, Usage } from '../serving/completer.js';
import { type Answer, type AnswerStyle, type ResponseHead, usageFields } from './answer.js';
import { chatLogprobs } from './logprobs.js';

export interface ChatStyleOptions {
  readonly logprobs: boolean;
  /** A last chunk with usage, and `usage: null` in all others. */
  readonly includeUsage: boolean;
  /** vLLM's return_token_ids; null if not asked for. */
  readonly promptIds: readonly number[] | null;
}

/** chat.completion and chat.completion.chunk. What chunks have in common is written once, not once a token. */
export class ChatStyle implements AnswerStyle {
  readonly #start: string;
  readonly #end: string;

  constructor(
    readonly head: ResponseHead,
    readonly options: ChatStyleOptions,
  ) {
    const { id, created, model, system_fingerprint } = head;
    const fields = JSON.stringify({ id, object: 'chat.completion.chunk', created, model, system_fingerprint });
    const promptIds = options.promptIds === null ? '' : `,"prompt_token_ids":${JSON.stringify(options.promptIds)}`;
    this.#start = `data: ${fields.slice(0, -1)},"choices":[{"index":`;
    this.#end = `}]${options.includeUsage ? ',"usage":null' : ''}}\n\n`;
    this.#firstEnd = `}]${promptIds}${options.includeUsage ? ',"usage":null' : ''}}\n\n`;
  }

  readonly #firstEnd: string;

  opening(choice: number): string {
    const delta = '{"role":"assistant","content":"","refusal":null}';
    return `${this.#start}${choice},"delta":${delta},"logprobs":null,"finish_reason":null${this.#firstEnd}`;
  }

  event(choice: number, { text, tokenIds, logprobs, outcome }: CompletionEvent): string {
    let chunks = '';
    if (text !== '' || (tokenIds.length > 0 && (this.options.logprobs || this.options.promptIds !== null))) {
      const tokens = this.options.logprobs ? JSON.stringify(chatLogprobs(logprobs ?? [])) : 'null';
      const ids = this.options.promptIds === null ? '' : `,"token_ids":${JSON.stringify(tokenIds)}`;
      const delta = `{"content":${JSON.stringify(text)}}`;
      chunks = `${this.#start}${choice},"delta":${delta},"logprobs":${tokens},"finish_reason":null${ids}${this.#end}`;
    }
    if (outcome === undefined) return chunks;
    const reason = JSON.stringify(outcome.finishReason);
    return `${chunks}${this.#start}${choice},"delta":{},"logprobs":null,"finish_reason":${reason}${this.#end}`;
  }

  usage(usage: Usage): string {
    const chunk = { ...this.head, object: 'chat.completion.chunk', choices: [], usage: usageFields(usage) };
    return `data: ${JSON.stringify(chunk)}\n\n`;
  }

  whole(answers: readonly Answer[], usage: Usage): object {
    const { promptIds } = this.options;
    const choices = answers.map(({ text, tokenIds, logprobs, outcome }, index) => ({
      index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: this.options.logprobs ? chatLogprobs(logprobs) : null,
      finish_reason: outcome!.finishReason,
      ...(promptIds !== null && { token_ids: tokenIds }),
    }));
    return {
      ...this.head,
      object: 'chat.completion',
      choices,
      usage: usageFields(usage),
      ...(promptIds !== null && { prompt_token_ids: promptIds }),
    };
  }
}
