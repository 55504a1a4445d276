import { EngineLoop } from '../../src/engine/engine-loop.js';
import type { EngineStats } from '../../src/engine/engine-stats.js';
import { expectedTokens, FakeSession, HIDDEN, VOCAB } from './fake-session.js';
import { answers, request } from './requests.js';

export interface TracedRequest {
  readonly arrivalMs: number;
  readonly promptIds: readonly number[];
  readonly maxTokens: number;
}

const BLOCK = 16;

/**
 * Prompt tokens that a plain cache finds, which forgets the block that was not used for longest: requests come one after
 * the other, and only prompts are kept.
 */
export function plainCacheHits(requests: readonly TracedRequest[], numBlocks: number): number {
  const idOf = new Map<string, number>(); // of a block and all before it
  const kept = new Set<number>(); // in order of use
  let hits = 0;
  for (const { promptIds } of requests) {
    const path: number[] = [];
    for (let end = BLOCK; end <= promptIds.length; end += BLOCK) {
      const key = `${path.at(-1)} ${promptIds.slice(end - BLOCK, end)}`;
      const id = idOf.get(key) ?? idOf.size;
      idOf.set(key, id);
      // The last token is always computed.
      if (kept.has(id) && end < promptIds.length) hits += BLOCK;
      path.push(id);
    }
    for (const id of path.reverse()) {
      kept.delete(id);
      kept.add(id);
    }
    for (const id of kept) {
      if (kept.size <= numBlocks) break;
      kept.delete(id);
    }
  }
  return hits;
}

/**
 * Recorded traffic on a fake session, in virtual time: a step takes a millisecond, and a tenth more for each token. Throws
 * if an answer is wrong or a block is lost.
 */
export async function replay(requests: readonly TracedRequest[], numBlocks: number, blockSize = BLOCK) {
  const contextSize = numBlocks * blockSize;
  const limits = {
    maxTokens: 128,
    maxRows: 80,
    maxSequences: 64,
    contextSize,
    blockSize,
    numBlocks,
    kvDtype: 'f16',
  } as const;
  const session = new FakeSession(limits);
  const loop = new EngineLoop(session, limits, { vocabSize: VOCAB, hiddenSize: HIDDEN });
  const jobs: Promise<void>[] = [];
  let next = 0;
  let now = 0;
  const arrive = (): void => {
    for (; next < requests.length && requests[next]!.arrivalMs <= now; next++) {
      const { promptIds, maxTokens } = requests[next]!;
      const stream = loop.submit(request(promptIds, maxTokens));
      jobs.push(
        answers(stream, 1).then(([got]) => {
          const wanted = expectedTokens(promptIds, maxTokens);
          if (String(got) !== String(wanted)) throw new Error(`a request got ${got} instead of ${wanted}`);
        }),
      );
    }
  };
  let mostRunning = 0;
  session.beforeResult = () => {
    now += 1 + 0.1 * session.batches.pop()!.tokenIds.length;
    mostRunning = Math.max(mostRunning, loop.stats().running);
    if (loop.stats().steps % 50 === 0) loop.checkIntegrity();
    arrive();
  };
  while (next < requests.length) {
    now = Math.max(now, requests[next]!.arrivalMs);
    arrive();
    for (let waited = 0; waited < jobs.length; ) {
      waited = jobs.length;
      await Promise.all(jobs);
    }
  }
  loop.checkIntegrity();
  const stats: EngineStats = loop.stats();
  if (stats.running + stats.waiting + stats.blocks.used > 0) throw new Error(`left over: ${JSON.stringify(stats)}`);
  return { stats, mostRunning };
}
