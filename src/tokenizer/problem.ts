import { EngineError } from '../base/errors.js';

/** Makes the error for a fault of one tokenizer file: TOKENIZER_INVALID with the file's path. */
export type Complain = (problem: string) => EngineError<'TOKENIZER_INVALID'>;

export function complainAbout(path: string): Complain {
  return (problem) => new EngineError('TOKENIZER_INVALID', { path, problem });
}

/** A token or other text of a file as it appears in a message: quoted and clipped. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}
