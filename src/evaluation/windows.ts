import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';

/** A piece of the text that is given to the model at once. All numbers count tokens of the text, from its beginning. */
export interface Window {
  readonly start: number;
  /** The first token whose score counts; those before it were scored in an earlier window. */
  readonly scoredFrom: number;
  readonly end: number;
}

/** Tokens. */
export interface WindowOptions {
  /** Longest input of the model, with the beginning-of-text token. Default: 512, or the context if that is smaller. */
  readonly window?: number | undefined;
  /**
   * How far a window begins after the one before. Default: as far as every token is still scored once, which costs one
   * step per token. Half a window gives every token at least half a window of context, at twice the cost.
   */
  readonly stride?: number | undefined;
}

const DEFAULT_WINDOW = 512;

/**
 * Cuts a text into windows that score each of its tokens once. Where the model begins texts with a token of its own,
 * every window does; elsewhere the first token of a window is only context, so windows overlap by one.
 */
export class WindowPlan {
  /** Tokens. */
  readonly window: number;
  readonly stride: number;
  readonly #textTokens: number; // of one window

  constructor(
    readonly numTokens: number,
    readonly hasBos: boolean,
    contextSize: number,
    options: WindowOptions,
  ) {
    const least = hasBos ? 1 : 2;
    if (numTokens < least) throw new EngineError('TEXT_TOO_SHORT', { tokens: numTokens, needed: least });
    this.window = wholeNumber('window', options.window ?? Math.min(DEFAULT_WINDOW, contextSize), 2, contextSize);
    this.#textTokens = this.window - (hasBos ? 1 : 0);
    const longest = this.window - 1;
    this.stride = wholeNumber('stride', options.stride ?? longest, 1, longest);
  }

  get numWindows(): number {
    return 1 + Math.ceil(Math.max(0, this.numTokens - this.#textTokens) / this.stride);
  }

  /** Tokens that are scored by the first windows. */
  numScored(windows = this.numWindows): number {
    return windows === 0 ? 0 : this.at(windows - 1).end - this.at(0).scoredFrom;
  }

  at(index: number): Window {
    const start = index * this.stride;
    const before = start - this.stride + this.#textTokens; // where the window before ended
    return {
      start,
      scoredFrom: index === 0 ? Number(!this.hasBos) : before,
      end: Math.min(start + this.#textTokens, this.numTokens),
    };
  }
}
