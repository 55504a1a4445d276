import type { EngineStats } from '../engine/engine-stats.js';
import type { Completer, PromptRequest } from './completer.js';
import type { Embedder } from './embedder.js';

export { type EngineStats, stepTokenBounds } from '../engine/engine-stats.js';

/** What a server needs of a loaded model; `Engine` is one. */
export interface ServedModel extends Completer, Embedder {
  /** Tokens of prompt and answer together. */
  readonly contextSize: number;
  /**
   * Token ids of a request's prompt, checked; a long one does not hold the event loop. Throws what generate() would
   * throw for it, and ABORTED.
   */
  readPrompt(request: PromptRequest, signal?: AbortSignal): Int32Array | Promise<Int32Array>;
  /** The text a conversation becomes. Throws CHAT_TEMPLATE_MISSING. */
  applyTemplate(request: PromptRequest): string;
  /**
   * Token ids of a text, with the tokens that the model expects around it unless told otherwise. Throws TOKENIZER_MISSING,
   * and ABORTED.
   */
  readText(
    text: string,
    options?: { readonly addSpecialTokens?: boolean },
    signal?: AbortSignal,
  ): Int32Array | Promise<Int32Array>;
  /** Text of token ids. Throws TOKENIZER_MISSING, TOKEN_ID_INVALID. */
  decode(tokenIds: ArrayLike<number>): string;
  stats(): EngineStats;
}
