import { EngineError } from '../base/errors.js';

const MAX_STOP_STRINGS = 64;
/** UTF-16 code units. */
const MAX_STOP_LENGTH = 1024;

/** Throws OPTION_INVALID for an empty string, one that is too long, or too many. */
export function resolveStopStrings(stop: string | readonly string[] | undefined): readonly string[] {
  const strings = stop === undefined ? [] : typeof stop === 'string' ? [stop] : [...stop];
  if (strings.length > MAX_STOP_STRINGS) {
    const value = `${strings.length} strings`;
    throw new EngineError('OPTION_INVALID', { option: 'stop', value, expected: `at most ${MAX_STOP_STRINGS} strings` });
  }
  for (const value of strings) {
    if (typeof value === 'string' && value.length > 0 && value.length <= MAX_STOP_LENGTH) continue;
    const expected = `a string of 1 to ${MAX_STOP_LENGTH} characters`;
    throw new EngineError('OPTION_INVALID', { option: 'stop', value, expected });
  }
  return strings;
}

/**
 * Cuts a text stream before the first stop string. Text that may turn out to be the beginning of one is held back, so
 * that what was shown never has to be taken back.
 */
export class StopStrings {
  #held = '';

  constructor(readonly strings: readonly string[]) {}

  /** Text that may be shown now; `stopped` once a stop string is complete, and then nothing more comes. */
  push(text: string): { text: string; stopped: boolean } {
    const all = this.#held + text;
    const found = this.strings.map((stop) => all.indexOf(stop)).filter((index) => index >= 0);
    if (found.length > 0) return { text: all.slice(0, Math.min(...found)), stopped: true };
    const hold = Math.max(0, ...this.strings.map((stop) => overlap(all, stop)));
    this.#held = all.slice(all.length - hold);
    return { text: all.slice(0, all.length - hold), stopped: false };
  }

  /** What was held back, when the stream has ended without a stop string. */
  flush(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }
}

/** Length of the longest end of `text` that is a beginning of `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
