import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';

/** Measures once and gives a rate or a time. */
export type Measurement = () => Promise<number>;

/** Of one measurement. */
const MAX_RUNS = 1000;

/** Throws OPTION_INVALID. */
export function checkRuns(option: string, runs: number): void {
  wholeNumber(option, runs, 1, MAX_RUNS);
}

/**
 * Measures several times and gives what each run said, after runs that only warm up: benny makes two, one to see that
 * the measurement is asynchronous and one to calibrate. Throws DEPENDENCY_MISSING without benny, and what `measure`
 * throws.
 */
export async function repeat(name: string, runs: number, measure: Measurement): Promise<readonly number[]> {
  const { default: benny } = await loadBenny();
  const results: number[] = [];
  let failure: unknown = null;
  const run = async () => {
    if (failure !== null) return; // benny knows no failures of asynchronous runs
    try {
      results.push(await measure());
    } catch (error) {
      failure = error;
    }
  };
  // As many samples as asked for, each of one run, however long or short.
  const options = { initCount: 1, minSamples: runs, minTime: Number.MIN_VALUE, maxTime: 0 };
  await withoutLog(() => benny.suite(name, benny.add(name, run, options)));
  if (failure !== null) throw failure;
  return results.slice(-runs);
}

async function loadBenny(): Promise<typeof import('benny')> {
  try {
    return await import('benny');
  } catch (error) {
    const missing = { dependency: 'benny', purpose: 'engine bench', install: 'npm install benny' };
    throw new EngineError('DEPENDENCY_MISSING', missing, { cause: error });
  }
}

/** benny announces itself on stdout, where only results may be. */
async function withoutLog<T>(action: () => Promise<T>): Promise<T> {
  const { log } = console;
  console.log = () => undefined;
  try {
    return await action();
  } finally {
    console.log = log;
  }
}
