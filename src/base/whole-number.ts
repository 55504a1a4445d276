import { EngineError } from './errors.js';

/** The value of an option, if it is a whole number within its limits. Throws OPTION_INVALID. */
export function wholeNumber(option: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const expected = `a whole number from ${least}${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ''}`;
  throw new EngineError('OPTION_INVALID', { option, value, expected });
}
