import type { SessionLimits } from '../../src/backend/backend.js';
import { BlockPool } from '../../src/engine/block-pool.js';
import { PrefixCache } from '../../src/engine/prefix-cache.js';
import { type Schedule, Scheduler, type SchedulerOptions } from '../../src/engine/scheduler.js';
import { Sequence, type Standing, type Wanted } from '../../src/engine/sequence.js';
import { limits } from './fake-session.js';
import { prompt, sampling } from './requests.js';

/** A scheduler by itself, for tests that drive it step by step. */
export function makeScheduler(more: Partial<SessionLimits> = {}, options: Partial<SchedulerOptions> = {}): Scheduler {
  const all = { ...limits, ...more };
  const pool = new BlockPool(all.numBlocks);
  return new Scheduler(pool, new PrefixCache(pool, all.blockSize, true), all, {
    maxWaiting: 10_000,
    maxPromptTokensBesideDecode: 64,
    window: null,
    maxSteps: 1,
    ...options,
  });
}

let numMade = 0;

/** A sequence with a prompt of its own, unless one is given; `arrival` in milliseconds. */
export function makeSequence(
  blockSize: number,
  promptIds: number | readonly number[],
  maxTokens: number,
  standing: Standing = {},
  arrival = 0,
  wanted: Wanted = { kind: 'tokens', sampling },
): Sequence {
  const ids = typeof promptIds === 'number' ? prompt(promptIds, ++numMade * 1009) : promptIds;
  return new Sequence(Int32Array.from(ids), maxTokens, wanted, blockSize, standing, arrival);
}

/** One step as the loop does it, with token 1 for everyone who is owed one; sequences with all their tokens end. */
export function step(scheduler: Scheduler, onEnd: (sequence: Sequence) => void = () => undefined): Schedule {
  const schedule = scheduler.schedule();
  for (const { sequence, numTokens } of schedule.parts) {
    scheduler.advance(sequence, numTokens);
    if (sequence.numPending > 0) continue;
    if (sequence.sampling !== null) sequence.append(1);
    if (sequence.sampling !== null && sequence.numGenerated < sequence.maxTokens) continue;
    scheduler.remove(sequence);
    onEnd(sequence);
  }
  return schedule;
}
