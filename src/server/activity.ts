import { EngineError } from '../base/errors.js';
import type { RequestScope } from './request-scope.js';

/** The requests in progress; how a server stops taking new ones. */
export class Activity {
  readonly #scopes = new Set<RequestScope>();
  readonly #perTenant = new Map<string, number>();
  #draining = false;
  #idle: (() => void)[] = [];

  constructor(readonly requestsPerKey: number) {}

  get running(): number {
    return this.#scopes.size;
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** From now on every new request, `/health` too, is refused with 503. Those in progress go on. */
  drain(): void {
    this.#draining = true;
  }

  /** Resolves when no request is in progress. */
  idle(): Promise<void> {
    return this.running === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Ends every request in progress with an error that says so. */
  abort(): void {
    for (const scope of this.#scopes) scope.abort(new EngineError('SHUTTING_DOWN', {}));
  }

  /** Throws KEY_BUSY where the tenant of an API key has too many requests in progress. */
  begin(scope: RequestScope): void {
    const { tenant } = scope;
    if (tenant !== undefined) {
      const running = this.#perTenant.get(tenant) ?? 0;
      if (running >= this.requestsPerKey) throw new EngineError('KEY_BUSY', { limit: this.requestsPerKey });
      this.#perTenant.set(tenant, running + 1);
    }
    this.#scopes.add(scope);
  }

  end(scope: RequestScope): void {
    if (!this.#scopes.delete(scope)) return;
    const { tenant } = scope;
    if (tenant !== undefined) {
      const running = this.#perTenant.get(tenant)! - 1;
      if (running > 0) this.#perTenant.set(tenant, running);
      else this.#perTenant.delete(tenant);
    }
    if (this.running > 0) return;
    for (const resolve of this.#idle) resolve();
    this.#idle = [];
  }
}
