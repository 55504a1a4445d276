import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { EngineError } from '../base/errors.js';
import { packageFile } from '../base/package-files.js';
import type { Contender, ContenderRun } from './contender.js';
import { lastJson, numbersOf, runProgram } from './program.js';
import { promptOf } from './throughput.js';

const NAME = 'node-llama-cpp';
/** Where its script and its package.json lie in this package; it is installed there and nowhere else. */
const FOLDER = 'bench/peers';

/** The folder of the script, or null in a bundle that came without it. */
export function peersFolder(): string | null {
  return packageFile(FOLDER);
}

export function isInstalled(folder: string): boolean {
  return existsSync(join(folder, 'node_modules', NAME, 'package.json'));
}

/** Installs it with `npm ci`: binaries that npm has, without building anything. Throws OPPONENT_FAILED, ABORTED. */
export async function installPeers(folder: string, signal?: AbortSignal): Promise<void> {
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', folder];
  await runProgram('npm', args, { name: `npm ci in ${folder}`, signal });
}

/** What to do about a missing one. */
export function notInstalled(folder: string): EngineError {
  const install = `engine bench peers --install (npm ci in ${folder}), or give a llama-bench by --opponent-binary`;
  return new EngineError('DEPENDENCY_MISSING', { dependency: NAME, purpose: 'engine bench peers', install });
}

/** node-llama-cpp, run by a script of ours. */
export function nodeLlamaCpp(folder: string): Contender {
  const start = async (run: ContenderRun, task: Readonly<Record<string, unknown>>) => {
    const request = JSON.stringify({ model: run.model, threads: run.threads, ...task });
    const args = [join(folder, 'node-llama-cpp.mjs'), request];
    return lastJson(NAME, await runProgram(process.execPath, args, { name: NAME, signal: run.signal }));
  };
  return {
    name: NAME,
    kvDtype: 'f16',
    greedy: async (run) => {
      const prompts = [[...run.promptIds]];
      const report = await start(run, { kind: 'greedy', prompts, generatedTokens: run.generatedTokens });
      return numbersOf(NAME, [report], 'tokenIds');
    },
    measure: async (run) => {
      const { batch, promptTokens, generatedTokens } = run.workload;
      const prompts = Array.from({ length: batch }, (_, i) => [...promptOf(promptTokens, run.vocabSize, i)]);
      const task = { kind: run.kind, prompts, generatedTokens: Math.max(1, generatedTokens), runs: run.runs };
      return numbersOf(NAME, [await start(run, task)], 'rates');
    },
  };
}
