import { expect, it } from 'vitest';
import { type CaseReport, runCase } from './random-case.js';

const NUM_CASES = 2000;

it.each([
  ['', 1],
  [', with several steps a call', 8],
])(
  'random arrivals, cancellations and failures leave every answer right and every block accounted for%s',
  async (_, maxSteps) => {
    const counts = { steps: 0, preemptions: 0, hitTokens: 0, copies: 0, longCalls: 0 };
    const total = { ...counts, whole: 0, cancelled: 0, failed: 0, slowest: 0 };
    for (let seed = 1; seed <= NUM_CASES; seed++) {
      let report: CaseReport;
      try {
        report = await runCase(seed, maxSteps);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
      const { ended, slowest, ...counts } = report;
      for (const [name, count] of Object.entries({ ...counts, ...ended })) total[name as keyof typeof total] += count;
      total.slowest = Math.max(total.slowest, slowest);
      // Nobody waits for much more than what everybody needs, computed at a token a step.
      expect(slowest, `seed ${seed}`).toBeLessThan(2);
    }
    // The cases are worth their time only if everything happens in them.
    expect(total.preemptions).toBeGreaterThan(NUM_CASES / 2);
    expect(total.hitTokens).toBeGreaterThan(NUM_CASES);
    expect(total.copies).toBeGreaterThan(NUM_CASES / 4);
    expect(total.whole).toBeGreaterThan(NUM_CASES);
    expect(total.cancelled).toBeGreaterThan(NUM_CASES / 4);
    expect(total.failed).toBeGreaterThan(NUM_CASES / 10);
    if (maxSteps > 1) expect(total.longCalls).toBeGreaterThan(NUM_CASES);
    else expect(total.longCalls).toBe(0);
  },
  60_000,
);
