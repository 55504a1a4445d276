import type { EngineStats } from '../../src/engine/engine-stats.js';
import type { RequestStart } from '../../src/server/observer.js';
import type { Outcome } from '../../src/serving/completer.js';

/** A request as the server would announce it. */
export function requestStart(overrides: Partial<RequestStart> = {}): RequestStart {
  return { requestId: 'req-1', operation: 'chat', model: 'tiny', stream: true, parameters: {}, ...overrides };
}

/** An answer of 4 tokens to a prompt of 10: queued 5 ms, first token after 30, ended after 90. */
export function outcome(overrides: Partial<Outcome> = {}): Outcome {
  return {
    finishReason: 'stop',
    usage: { promptTokens: 10, completionTokens: 4, cachedTokens: 6 },
    timings: { queueMs: 5, ttftMs: 30, totalMs: 90, prefillTokensPerSecond: 400, decodeTokensPerSecond: 50 },
    ...overrides,
  };
}

export const engineStats: EngineStats = {
  running: 3,
  waiting: 2,
  blocks: { total: 40, used: 10, cached: 5 },
  prefixCache: { queriedTokens: 100, hitTokens: 60, evictedBlocks: 7 },
  steps: 20,
  stepsByTokens: [1, 9, 4, 4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  failing: null,
  computedTokens: 300,
  generatedTokens: 80,
  preemptions: 1,
};
