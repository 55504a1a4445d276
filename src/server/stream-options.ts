import { EngineError } from '../base/errors.js';

interface StreamFields {
  readonly stream?: boolean | undefined;
  readonly stream_options?: { readonly include_usage?: boolean | null } | undefined;
}

/** Whether a stream ends with usage. Throws OPTION_INVALID for options of a stream where none is wanted. */
export function checkStreamOptions({ stream, stream_options: value }: StreamFields): boolean {
  if (value !== undefined && stream !== true) {
    throw new EngineError('OPTION_INVALID', { option: 'stream_options', value, expected: 'stream: true beside it' });
  }
  return value?.include_usage ?? false;
}
