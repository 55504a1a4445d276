import { EngineError } from '../base/errors.js';
import { type EngineStats, stepTokenBounds } from './engine-stats.js';

/** How the steps of a loop went. */
export class StepRecord {
  readonly #byTokens: number[] = new Array(stepTokenBounds.length + 1).fill(0);
  #computedTokens = 0;
  #failing: EngineStats['failing'] = null;

  /** The session has computed this many tokens. */
  computed(numTokens: number): void {
    const bound = stepTokenBounds.findIndex((most) => numTokens <= most);
    this.#byTokens[bound < 0 ? stepTokenBounds.length : bound]!++;
    this.#computedTokens += numTokens;
  }

  /** All that came of the step has been handed on. */
  succeeded(): void {
    this.#failing = null;
  }

  failed(error: unknown): void {
    // What a request asked for may fail a step, too, and says nothing of the engine.
    if (error instanceof EngineError && error.status < 500) return;
    this.#failing = { steps: (this.#failing?.steps ?? 0) + 1, lastError: error };
  }

  stats(): Pick<EngineStats, 'steps' | 'stepsByTokens' | 'computedTokens' | 'failing'> {
    return {
      steps: this.#byTokens.reduce((sum, steps) => sum + steps),
      stepsByTokens: [...this.#byTokens],
      computedTokens: this.#computedTokens,
      failing: this.#failing,
    };
  }
}
