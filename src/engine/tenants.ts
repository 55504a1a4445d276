import { invariant } from '../base/errors.js';
import type { Sequence } from './sequence.js';

interface Tenant {
  readonly queue: Sequence[]; // ascending order
  running: number;
  /** Tokens served, generated ones counting twice. */
  served: number;
}

/** Tenants without requests whose accounts are remembered. */
const MAX_IDLE_TENANTS = 1024;
/** What a token costs its tenant. arXiv 2401.00588 weighs input and output like this. */
const PROMPT_TOKEN = 1;
const GENERATED_TOKEN = 2;

/**
 * Who waits. The tenant that was served least goes first (virtual token counters, arXiv 2401.00588); one who comes back
 * after a pause, or for the first time, starts level with the least served of those who are here, or with whoever left
 * last, so that nobody saves up a claim. Within a tenant the sequence with the lowest order goes first.
 */
export class Tenants {
  readonly #tenants = new Map<string, Tenant>();
  readonly #idle = new Set<string>(); // in order of departure
  #numWaiting = 0;
  /** What the tenant that left last had been served. */
  #lastServed = 0;

  get numWaiting(): number {
    return this.#numWaiting;
  }

  add(sequence: Sequence): void {
    const { queue } = this.#arrive(sequence.tenant);
    let low = 0;
    for (let high = queue.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if (queue[middle]!.order <= sequence.order) low = middle + 1;
      else high = middle;
    }
    queue.splice(low, 0, sequence);
    this.#numWaiting++;
  }

  /** Takes a sequence out of its queue; false if it was not there. */
  remove(sequence: Sequence): boolean {
    const tenant = this.#tenants.get(sequence.tenant);
    const index = tenant?.queue.indexOf(sequence) ?? -1;
    if (tenant === undefined || index < 0) return false;
    tenant.queue.splice(index, 1);
    this.#numWaiting--;
    this.#departIfIdle(sequence.tenant, tenant);
    return true;
  }

  /** The sequence whose turn it is among those that may start; null if there is none. */
  next(mayStart: (sequence: Sequence) => boolean): Sequence | null {
    for (const tried = new Set<Tenant>(); ; ) {
      const tenant = this.#leastServed(tried);
      if (tenant === null) return null;
      const sequence = tenant.queue.find(mayStart);
      if (sequence !== undefined) return sequence;
      tried.add(tenant);
    }
  }

  #leastServed(except: ReadonlySet<Tenant>): Tenant | null {
    if (this.#numWaiting === 0) return null;
    let least: Tenant | null = null;
    for (const tenant of this.#tenants.values()) {
      if (tenant.queue.length === 0 || except.has(tenant)) continue;
      const before =
        least === null ||
        tenant.served < least.served ||
        (tenant.served === least.served && tenant.queue[0]!.order < least.queue[0]!.order);
      if (before) least = tenant;
    }
    return least;
  }

  started(sequence: Sequence): void {
    this.#arrive(sequence.tenant).running++;
  }

  stopped(sequence: Sequence): void {
    const tenant = this.#tenants.get(sequence.tenant)!;
    tenant.running--;
    this.#departIfIdle(sequence.tenant, tenant);
  }

  /** Tokens up to position `end` of a running sequence are being computed. */
  charge(sequence: Sequence, end: number): void {
    const from = sequence.numChargedTokens;
    if (end <= from) return;
    const promptEnd = Math.min(end, sequence.promptLength);
    const prompt = Math.max(0, promptEnd - from);
    this.#tenants.get(sequence.tenant)!.served += prompt * PROMPT_TOKEN + (end - from - prompt) * GENERATED_TOKEN;
    sequence.numChargedTokens = end;
  }

  /** Tokens served so far, generated ones counting twice. */
  servedOf(tenant: string): number {
    return this.#tenants.get(tenant)?.served ?? 0;
  }

  #arrive(name: string): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined || this.#idle.has(name)) {
      let least = Infinity;
      for (const [other, { served }] of this.#tenants) if (!this.#idle.has(other)) least = Math.min(least, served);
      const level = least === Infinity ? this.#lastServed : least;
      if (tenant === undefined) {
        tenant = { queue: [], running: 0, served: level };
        this.#tenants.set(name, tenant);
      } else {
        tenant.served = Math.max(tenant.served, level);
        this.#idle.delete(name);
      }
    }
    return tenant;
  }

  #departIfIdle(name: string, tenant: Tenant): void {
    if (tenant.queue.length > 0 || tenant.running > 0) return;
    this.#idle.add(name);
    this.#lastServed = tenant.served;
    if (this.#idle.size <= MAX_IDLE_TENANTS) return;
    const oldest = this.#idle.values().next().value!;
    this.#idle.delete(oldest);
    this.#tenants.delete(oldest);
  }

  /** `running`: how many sequences of each tenant run. */
  checkIntegrity(running: ReadonlyMap<string, number>): void {
    let waiting = 0;
    for (const [name, tenant] of this.#tenants) {
      waiting += tenant.queue.length;
      invariant(tenant.running === (running.get(name) ?? 0), `tenant ${name} has lost count of what runs`);
      const idle = tenant.queue.length === 0 && tenant.running === 0;
      invariant(idle === this.#idle.has(name), `tenant ${name} is idle and is not, at once`);
      tenant.queue.forEach((sequence, i) => {
        invariant(i === 0 || tenant.queue[i - 1]!.order <= sequence.order, `the queue of ${name} is out of order`);
        invariant(sequence.numBlocks === 0, 'a waiting sequence owns blocks');
      });
    }
    invariant(waiting === this.#numWaiting, 'the number of waiting sequences is wrong');
  }
}
