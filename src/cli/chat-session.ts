import { EngineError } from '../base/errors.js';
import { resolveSampling } from '../engine/sampler.js';
import type { Engine } from '../library/engine.js';
import type { Outcome } from '../serving/completer.js';
import type { ChatMessage } from '../tokenizer/chat-template.js';
import { type SamplingFlags, samplingRequest } from './flags.js';
import { note, type Output, statistics } from './output.js';
import { loadChat, saveChat } from './saved-chat.js';

export interface ChatOptions {
  readonly system: string | null;
  readonly sampling: SamplingFlags;
  readonly chatTemplateKwargs: Readonly<Record<string, unknown>> | undefined;
  /** Timings on stderr after every answer. */
  readonly stats: boolean;
  /** Someone is typing, and can be told what to do. */
  readonly isAtTerminal: boolean;
}

/** A conversation with a model: what has been said, and how answers are generated. */
export class ChatSession {
  readonly #engine: Engine;
  readonly #output: Output;
  readonly #options: ChatOptions;
  system: string | null;
  #sampling: SamplingFlags = {};
  /** Turns of user and assistant. */
  #turns: readonly ChatMessage[] = [];
  #last: Outcome | null = null;
  #answer: AbortController | null = null;

  /** Throws OPTION_INVALID for sampling flags out of their ranges. */
  constructor(engine: Engine, output: Output, options: ChatOptions) {
    this.#engine = engine;
    this.#output = output;
    this.#options = options;
    this.system = options.system;
    this.sampling = options.sampling;
  }

  get sampling(): SamplingFlags {
    return this.#sampling;
  }

  /** Throws OPTION_INVALID and leaves everything as it was. */
  set sampling(flags: SamplingFlags) {
    resolveSampling(samplingRequest(flags), this.#engine.model.vocabSize);
    this.#sampling = flags;
  }

  /** Ends the answer that is being generated; false if there is none. */
  interrupt(): boolean {
    this.#answer?.abort();
    return this.#answer !== null;
  }

  /**
   * Answers a message on stdout and remembers both; an answer that was interrupted is remembered as far as it got. The
   * finish reason is `abort` for those.
   */
  async answer(text: string): Promise<Outcome> {
    const question: ChatMessage = { role: 'user', content: text };
    this.#answer = new AbortController();
    const { signal } = this.#answer;
    const request = {
      ...samplingRequest(this.#sampling),
      messages: this.#messages([question]),
      chatTemplateKwargs: this.#options.chatTemplateKwargs,
      signal,
    };
    try {
      const completion = await this.#engine.complete(request, async (event) => {
        await this.#output.write(event.text);
        if (this.#output.closed) this.interrupt();
      });
      if (!completion.text.endsWith('\n')) await this.#output.write('\n');
      if (completion.text !== '') {
        this.#turns = [...this.#turns, question, { role: 'assistant', content: completion.text }];
      }
      this.#last = completion;
      this.#explainEnd(completion);
      if (this.#options.stats) note(statistics(this.#engine, completion));
      return completion;
    } finally {
      this.#answer = null;
    }
  }

  clear(): void {
    this.#turns = [];
    this.#last = null;
  }

  save(path: string): void {
    const { system } = this;
    saveChat(path, { version: 1, model: this.#engine.model.name, system, messages: this.#turns });
    note(`saved ${this.#turns.length} messages to ${path}`);
  }

  load(path: string): void {
    const chat = loadChat(path);
    this.system = chat.system;
    this.#turns = chat.messages;
    this.#last = null;
    const other = chat.model === this.#engine.model.name ? '' : `, held with ${chat.model}`;
    note(`loaded ${chat.messages.length} messages from ${path}${other}`);
  }

  describe(): string {
    const { contextSize } = this.#engine;
    const turns = `${this.#turns.length} messages`;
    if (this.#last === null) return `${turns}; context of ${contextSize} tokens`;
    const { promptTokens, completionTokens } = this.#last.usage;
    const used = promptTokens + completionTokens;
    return `${turns}; ${used} of ${contextSize} tokens of context used\n${statistics(this.#engine, this.#last)}`;
  }

  #messages(more: readonly ChatMessage[]): ChatMessage[] {
    const first: ChatMessage[] = this.system === null ? [] : [{ role: 'system', content: this.system }];
    return [...first, ...this.#turns, ...more];
  }

  /** An answer that was cut says so. */
  #explainEnd({ finishReason, usage }: Outcome): void {
    if (finishReason === 'abort' && this.#options.isAtTerminal) note('(interrupted)');
    if (finishReason !== 'length') return;
    const { contextSize } = this.#engine;
    if (usage.promptTokens + usage.completionTokens >= contextSize) {
      note(`(cut: the context of ${contextSize} tokens is full; /clear starts over, --context-size N gives more)`);
    } else if (this.#options.isAtTerminal) {
      note(`(cut after ${usage.completionTokens} tokens; /set max-tokens N allows more)`);
    }
  }
}

/** What to do about a conversation that no longer fits, for someone in a chat. */
export function explain(error: unknown): void {
  if (error instanceof EngineError && error.code === 'PROMPT_TOO_LONG') {
    note('(the conversation no longer fits: /clear starts over, /save FILE keeps it before)');
  }
}
