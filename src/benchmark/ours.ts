import { DEFAULT_KV_DTYPE } from '../backend/kv-dtype.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import type { Contender, ContenderRun, SpeedRun } from './contender.js';
import { lastJson, runProgram } from './program.js';
import type { BenchReport } from './report.js';
import { greedyTokens, promptOf } from './throughput.js';

/** Starts this program: the executable and its first arguments. */
export type Program = readonly [command: string, ...args: string[]];

/**
 * This engine, as `engine bench prefill` and `decode` in a process of their own.
 *
 * @param flags of loading, as on the command line; threads are the run's
 * @param load the same for this process, which generates the tokens that are compared
 */
export function ours(program: Program, flags: readonly string[], load: LoadOptions): Contender {
  return {
    name: 'engine-ts',
    kvDtype: load.kvDtype ?? DEFAULT_KV_DTYPE,
    measure: async (run) => {
      const { rows } = await measureInProcess(program, run, flags);
      return rows.map((row) => row.tokens_per_second.median);
    },
    greedy: async ({ model, threads, promptIds, generatedTokens, signal }) => {
      const contextSize = promptIds.length + generatedTokens;
      await using engine = await Engine.load({ ...load, model, threads, contextSize, signal });
      return await greedyTokens(engine, promptIds, generatedTokens); // before it is disposed of
    },
  };
}

/** Of the prompts that tokens are compared after. */
const PROMPTS = 8;
const PROMPT_TOKENS = 16;

/**
 * The prompt, of a few, after which this engine is surest of the next token. Engines round differently, so where the two
 * likeliest are nearly as likely each may take another, and with random weights they often are.
 */
export async function clearestPrompt(load: LoadOptions, run: ContenderRun): Promise<Int32Array> {
  const { model, threads, vocabSize, signal } = run;
  await using engine = await Engine.load({ ...load, model, threads, contextSize: PROMPT_TOKENS + 1, signal });
  let clearest: { promptIds: Int32Array; margin: number } = { promptIds: new Int32Array(0), margin: -1 };
  for (let i = 0; i < PROMPTS; i++) {
    const promptIds = promptOf(PROMPT_TOKENS, vocabSize, i);
    const { logprobs } = await engine.complete({
      tokenIds: promptIds,
      maxTokens: 1,
      temperature: 0,
      logprobs: 2,
      signal,
    });
    const [first, second] = logprobs![0]!.top;
    const margin = first!.logprob - second!.logprob;
    if (margin > clearest.margin) clearest = { promptIds, margin };
  }
  return clearest.promptIds;
}

/** The report of a measurement in a process of its own. Throws OPPONENT_FAILED. */
export async function measureInProcess(
  [command, ...first]: Program,
  { model, threads, kind, workload, runs, signal }: Omit<SpeedRun, 'vocabSize'>,
  flags: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<BenchReport> {
  const sizes = ['--prompt-tokens', workload.promptTokens, '--batch', workload.batch, '--runs', runs];
  if (kind === 'decode') sizes.push('--generated-tokens', workload.generatedTokens);
  const args = [...first, 'bench', kind, '-m', model, '--threads', threads, ...sizes, '--no-check', '--json', ...flags];
  const name = `engine bench ${kind}`;
  return lastJson(name, await runProgram(command, args.map(String), { name, signal, env })) as BenchReport;
}
