import { describe, expect, it } from 'vitest';
import { buildBatch } from '../../src/engine/batch.js';
import type { Scheduler } from '../../src/engine/scheduler.js';
import { prompt } from './requests.js';
import { makeScheduler, makeSequence } from './steps.js';

const BLOCK = 16;
const limits = {
  maxTokens: 512,
  maxRows: 80,
  maxSequences: 64,
  contextSize: 4096,
  blockSize: BLOCK,
  numBlocks: 8192,
};
const NUM_STEPS = 300;

/** Microseconds: the median of schedule() and advance() and that of buildBatch(), over steps in which all generate. */
function measure(scheduler: Scheduler) {
  const [planning, building]: [number[], number[]] = [[], []];
  for (let i = 0; i < NUM_STEPS; i++) {
    const start = performance.now();
    const { parts } = scheduler.schedule();
    const scheduled = performance.now();
    buildBatch(parts, BLOCK);
    const built = performance.now();
    for (const { sequence, numTokens } of parts) scheduler.advance(sequence, numTokens);
    const end = performance.now();
    planning.push(1000 * (scheduled - start + end - built));
    building.push(1000 * (built - scheduled));
    for (const { sequence } of parts) if (sequence.numPending === 0) sequence.append(1);
  }
  const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >>> 1]!;
  return { planning: median(planning), building: median(building) };
}

/** A scheduler with 64 sequences that generate. */
function generating(): Scheduler {
  const scheduler = makeScheduler(limits);
  for (let i = 0; i < 64; i++) scheduler.add(makeSequence(BLOCK, 300 + i, 2000));
  while (scheduler.numWaiting > 0) {
    for (const { sequence, numTokens } of scheduler.schedule().parts) {
      scheduler.advance(sequence, numTokens);
      if (sequence.numPending === 0) sequence.append(1);
    }
  }
  return scheduler;
}

/** Microseconds of each step, by number, while 1,000 requests with a common beginning come together and then one by one. */
function comeAndGo(numTenants: number): number[] {
  const scheduler = makeScheduler({ ...limits, numBlocks: 1000 });
  const common = prompt(16 * BLOCK);
  let made = 0;
  const add = (): void => {
    const tenant = `tenant ${made % numTenants}`;
    scheduler.add(makeSequence(BLOCK, [...common, made % 1000, made >>> 10], 5, { tenant }, made++));
  };
  for (let i = 0; i < 1000; i++) add();
  return Array.from({ length: NUM_STEPS }, () => {
    const start = performance.now();
    const { parts } = scheduler.schedule();
    for (const { sequence, numTokens } of parts) scheduler.advance(sequence, numTokens);
    const end = performance.now();
    for (const { sequence } of parts) {
      if (sequence.numPending === 0) sequence.append(1);
      if (sequence.numGenerated < sequence.maxTokens) continue;
      scheduler.remove(sequence);
      add();
    }
    return 1000 * (end - start);
  });
}

// The aims are 100 µs and 1 ms; the limits are three times that, since other programs run beside the tests.
describe('cost of a step', () => {
  it('is at most 100 µs to plan, and as much to lay out, for 64 sequences that generate', () => {
    const { planning, building } = measure(generating());
    expect(planning).toBeLessThan(300);
    expect(building).toBeLessThan(300);
  });

  it.each([1, 1000])('is at most 1 ms with 1,000 requests of %i tenants waiting', (numTenants) => {
    const scheduler = generating();
    for (let i = 0; i < 1000; i++) {
      scheduler.add(makeSequence(BLOCK, 500, 100, { tenant: `tenant ${i % numTenants}` }, i));
    }
    expect(measure(scheduler).planning).toBeLessThan(3000);
    expect(scheduler.numWaiting).toBe(1000);
  });

  it.each([1, 1000])(
    'is at most 1 ms, in the worst step too, as 1,000 requests of %i tenants come and go',
    (numTenants) => {
      const runs = Array.from({ length: 5 }, () => comeAndGo(numTenants));
      const quietest = runs[0]!.map((_, step) => Math.min(...runs.map((run) => run[step]!)));
      expect(Math.max(...quietest)).toBeLessThan(3000);
    },
  );
});
