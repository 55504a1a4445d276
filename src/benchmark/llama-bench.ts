import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EngineError } from '../base/errors.js';
import type { Contender, SpeedRun } from './contender.js';
import { numbersOf, runProgram } from './program.js';

/** What llama.cpp computes at once unless told otherwise: tokens of a step. */
const STEP_TOKENS = 512;

/**
 * llama.cpp's own benchmarks: llama-bench for one sequence, llama-batched-bench beside it for several. They generate no
 * tokens that could be compared. Throws FILE_NOT_FOUND.
 */
export function llamaBench(binary: string): Contender {
  if (!existsSync(binary)) throw new EngineError('FILE_NOT_FOUND', { what: 'opponent', path: binary });
  const batched = join(dirname(binary), basename(binary).replace('llama-bench', 'llama-batched-bench'));
  const hasBatched = batched !== binary && existsSync(batched);
  return {
    name: 'llama.cpp',
    kvDtype: 'f16',
    greedy: () => Promise.resolve(null),
    measure: async (run) => {
      if (run.workload.batch === 1) return measureOne(binary, run);
      return hasBatched ? measureBatch(batched, run) : null;
    },
  };
}

async function measureOne(binary: string, run: SpeedRun): Promise<number[]> {
  const { promptTokens, generatedTokens } = run.workload;
  // A decode of llama-bench begins with an empty context, or as many tokens deep as -d says.
  const depth = promptTokens > 1 ? ['-d', promptTokens] : [];
  const sizes = run.kind === 'prefill' ? ['-p', promptTokens, '-n', 0] : ['-p', 0, '-n', generatedTokens, ...depth];
  const output = await start(binary, run, ['-t', run.threads, ...sizes, '-r', run.runs, '-o', 'jsonl']);
  return numbersOf('llama-bench', output, 'samples_ts');
}

async function measureBatch(binary: string, run: SpeedRun): Promise<number[]> {
  const { batch, promptTokens, generatedTokens } = run.workload;
  const context = batch * (promptTokens + generatedTokens + 1);
  const sizes = ['-npp', promptTokens, '-ntg', Math.max(1, generatedTokens), '-npl', repeated(batch, run.runs)];
  const threads = ['-t', run.threads, '-tb', run.threads];
  const steps = ['-c', context, '-b', Math.max(STEP_TOKENS, batch), '-ub', STEP_TOKENS];
  const output = await start(binary, run, [...threads, ...steps, ...sizes, '--output-format', 'jsonl']);
  return numbersOf('llama-batched-bench', output, run.kind === 'prefill' ? 'speed_pp' : 'speed_tg');
}

/** llama-batched-bench measures once for each number of sequences that it is given. */
function repeated(batch: number, runs: number): string {
  return new Array<number>(runs).fill(batch).join(',');
}

/** The JSON objects that it prints, one a line; other lines are its log. */
async function start(binary: string, run: SpeedRun, args: readonly (string | number)[]): Promise<unknown[]> {
  const all = ['-m', run.model, '-ngl', '0', ...args.map(String)];
  const output = await runProgram(binary, all, { name: basename(binary), signal: run.signal });
  return output.split('\n').flatMap((line) => {
    try {
      return line.startsWith('{') ? [JSON.parse(line) as unknown] : [];
    } catch {
      return [];
    }
  });
}
