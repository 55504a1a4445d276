import type { SampledToken } from '../engine/token-stream.js';
import type { StreamDecoder } from '../tokenizer/stream-decoder.js';
import type { StopStrings } from './stop-strings.js';

/** One answer on its way from tokens to text: decoded, and cut before the first stop string. */
export class AnswerText {
  #numTokens = 0;
  #stopped = false;

  constructor(
    /** Null: the model has no tokenizer, the answer no text. */
    readonly decoder: StreamDecoder | null,
    readonly stop: StopStrings,
    /** They have no text. */
    readonly eosIds: ReadonlySet<number>,
  ) {}

  /** Tokens that are part of the answer. */
  get numTokens(): number {
    return this.#numTokens;
  }

  /** A stop string is complete: what comes after is not part of the answer. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Text that can be shown now, and those of the tokens that belong to the answer. */
  push(tokens: readonly SampledToken[]): { text: string; used: readonly SampledToken[] } {
    let text = '';
    let numUsed = 0;
    while (numUsed < tokens.length && !this.#stopped) {
      const { id } = tokens[numUsed++]!;
      if (this.decoder !== null && !this.eosIds.has(id)) text += this.#show(this.decoder.push([id]));
    }
    this.#numTokens += numUsed;
    return { text, used: numUsed === tokens.length ? tokens : tokens.slice(0, numUsed) };
  }

  /** What was held back, when no more tokens come. */
  flush(): string {
    if (this.decoder === null) return '';
    const text = this.#show(this.decoder.flush());
    return this.#stopped ? text : text + this.stop.flush();
  }

  #show(decoded: string): string {
    const { text, stopped } = this.stop.push(decoded);
    this.#stopped = stopped;
    return text;
  }
}
