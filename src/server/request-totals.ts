import type { RequestEnd, RequestStart } from './observer.js';

/** Tokens of all answers to a request. The n answers to one prompt share what of it was found in the cache. */
export function requestTotals({ parameters }: RequestStart, { outcomes }: RequestEnd) {
  const sum = { completionTokens: 0, cachedTokens: 0 };
  for (const { usage } of outcomes) {
    sum.completionTokens += usage.completionTokens;
    sum.cachedTokens += usage.cachedTokens;
  }
  return { ...sum, cachedTokens: Math.round(sum.cachedTokens / (parameters.n ?? 1)) };
}
