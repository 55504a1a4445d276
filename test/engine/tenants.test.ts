import { describe, expect, it } from 'vitest';
import type { Scheduler } from '../../src/engine/scheduler.js';
import { Tenants } from '../../src/engine/tenants.js';
import { makeScheduler, makeSequence, step } from './steps.js';

/** Tokens computed for each tenant while `goOn`. */
function tokensByTenant(scheduler: Scheduler, goOn: () => boolean): Map<string, number> {
  const tokens = new Map<string, number>();
  while (goOn()) {
    for (const { sequence, numTokens } of step(scheduler).parts) {
      tokens.set(sequence.tenant, (tokens.get(sequence.tenant) ?? 0) + numTokens);
    }
  }
  scheduler.checkIntegrity();
  return tokens;
}

const add = (scheduler: Scheduler, tenant: string, count: number, arrival = 0) => {
  for (let i = 0; i < count; i++) scheduler.add(makeSequence(4, 8, 8, { tenant }, arrival + i));
};

describe('tenants', () => {
  it('get equal tokens while both have work, although one has ten times as many requests', () => {
    const scheduler = makeScheduler({ numBlocks: 64, maxSequences: 4, maxRows: 4, maxTokens: 16 });
    add(scheduler, 'many', 400);
    add(scheduler, 'few', 40, 1000);
    let steps = 0;
    const served = tokensByTenant(scheduler, () => steps++ < 120);
    expect(served.get('few')).toBeLessThan(40 * 15); // they had work all the time
    const ratio = served.get('many')! / served.get('few')!;
    expect(ratio).toBeGreaterThan(0.85);
    expect(ratio).toBeLessThan(1.15);
  });

  it('save up nothing while they are away', () => {
    const scheduler = makeScheduler({ numBlocks: 64, maxSequences: 2, maxRows: 2, maxTokens: 16 });
    add(scheduler, 'visitor', 1);
    tokensByTenant(scheduler, () => !scheduler.isIdle);
    add(scheduler, 'steady', 400);
    for (let i = 0; i < 200; i++) step(scheduler);
    add(scheduler, 'visitor', 100, 1000);
    let steps = 0;
    const served = tokensByTenant(scheduler, () => steps++ < 200);
    expect(served.get('visitor')! / served.get('steady')!).toBeLessThan(1.15);
    expect(served.get('visitor')! / served.get('steady')!).toBeGreaterThan(0.85);
  });

  it('that come while nobody is here have no claim on those who were', () => {
    const scheduler = makeScheduler({ numBlocks: 64, maxSequences: 2, maxRows: 2, maxTokens: 16 });
    add(scheduler, 'steady', 100);
    tokensByTenant(scheduler, () => !scheduler.isIdle);
    add(scheduler, 'newcomer', 100);
    add(scheduler, 'steady', 100);
    let steps = 0;
    const served = tokensByTenant(scheduler, () => steps++ < 200);
    expect(served.get('newcomer')! / served.get('steady')!).toBeLessThan(1.15);
  });

  it('do not lose what they owe by leaving for a moment', () => {
    const tenants = new Tenants();
    const [rich, poor] = ['rich', 'poor'].map((tenant) => makeSequence(4, 100, 1, { tenant }));
    for (const sequence of [rich!, poor!]) {
      tenants.add(sequence);
      tenants.started(sequence);
      tenants.remove(sequence);
    }
    tenants.charge(rich!, 100);
    tenants.charge(poor!, 10);
    tenants.stopped(rich!);
    tenants.add(makeSequence(4, 1, 1, { tenant: 'rich' }, 0));
    tenants.add(makeSequence(4, 1, 1, { tenant: 'poor' }, 5));
    expect(tenants.servedOf('rich')).toBe(100);
    expect(tenants.next(() => true)!.tenant).toBe('poor');
  });

  it('pay once for tokens that are computed again after a preemption', () => {
    const scheduler = makeScheduler({ numBlocks: 7, maxSequences: 4, maxRows: 4, maxTokens: 16 });
    const accounts = ['a', 'b'].map((tenant, i) => makeSequence(4, 8, 12, { tenant }, i));
    for (const sequence of accounts) scheduler.add(sequence);
    while (!scheduler.isIdle) step(scheduler);
    expect(scheduler.numPreemptions).toBeGreaterThan(0);
    for (const sequence of accounts) expect(sequence.numChargedTokens).toBe(8 + 11); // the last one is never fed back
  });

  it('are forgotten by and by, once thousands have been here', () => {
    const tenants = new Tenants();
    const visit = (tenant: string) => {
      const sequence = makeSequence(4, 4, 1, { tenant });
      tenants.add(sequence);
      tenants.started(sequence);
      tenants.remove(sequence);
      tenants.charge(sequence, 4);
      tenants.stopped(sequence);
    };
    for (let i = 0; i < 5000; i++) visit(`tenant ${i}`);
    const remembered = Array.from({ length: 5000 }, (_, i) => tenants.servedOf(`tenant ${i}`) > 0);
    expect(remembered.filter(Boolean)).toHaveLength(1024);
    expect(remembered.at(-1)).toBe(true);
    tenants.checkIntegrity(new Map());
  });
});
