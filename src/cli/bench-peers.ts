import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { nativeInfo } from '../backend/native.js';
import { EngineError } from '../base/errors.js';
import type { Contender } from '../benchmark/contender.js';
import { llamaBench } from '../benchmark/llama-bench.js';
import { withNeighbours } from '../benchmark/neighbours.js';
import { installPeers, isInstalled, nodeLlamaCpp, notInstalled, peersFolder } from '../benchmark/node-llama-cpp.js';
import { clearestPrompt, ours } from '../benchmark/ours.js';
import { comparePeers, type PeersResult } from '../benchmark/peers.js';
import { checkRuns } from '../benchmark/repetition.js';
import type { SpeedKind } from '../benchmark/speed.js';
import { contextNeeded, type Workload } from '../benchmark/throughput.js';
import { openModel } from '../formats/hub.js';
import { readModelConfig } from '../model/load.js';
import { type BenchModelFlags, benchModelFlags, withBenchModel } from './bench-model.js';
import { jsonFlag, printReport, reportOf } from './bench-output.js';
import {
  type BenchLoadFlags,
  batchFlag,
  benchLoadFlags,
  besides,
  loadArguments,
  loadOptionsOf,
  neighboursFlag,
  thisProgram,
} from './bench-speed.js';
import { number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { note } from './output.js';
import { ProgressBar } from './progress-bar.js';

interface PeersFlags extends BenchModelFlags, BenchLoadFlags {
  readonly opponentBinary?: string;
  readonly install?: boolean;
  readonly promptTokens?: number;
  readonly generatedTokens?: number;
  readonly batch?: readonly number[];
  readonly rounds?: number;
  readonly runs?: number;
  readonly neighbours?: number;
  readonly json?: string | true;
}

export function peersCommand(): Command {
  const command = new Command('peers').description(
    'the same GGUF file, threads and sizes with llama.cpp, in turn; every measurement is a process of its own',
  );
  for (const flag of [...benchModelFlags(), ...benchLoadFlags()]) command.addOption(flag);
  return command
    .addOption(new Option('--opponent-binary <path>', 'a llama-bench; llama-batched-bench beside it measures batches'))
    .addOption(new Option('--install', 'install node-llama-cpp first, where only this command sees it (800 MB)'))
    .addOption(number('--prompt-tokens <n>', 'of the prefill; default 512, or what the model allows'))
    .addOption(number('--generated-tokens <n>', 'of a decode, of each sequence; default 128, or what the model allows'))
    .addOption(batchFlag('sequences of a decode at once, e.g. 1,8: a row each; default 1,8'))
    .addOption(number('--rounds <n>', 'of all engines in turn; default 3'))
    .addOption(number('--runs <n>', 'measurements in each round, of which the median counts; default 3'))
    .addOption(neighboursFlag())
    .addOption(jsonFlag())
    .action(peers);
}

async function peers(flags: PeersFlags): Promise<void> {
  const { rounds = 3, runs = 3, neighbours = 0 } = flags;
  checkRuns('--rounds', rounds);
  checkRuns('--runs', runs);
  const threads = flags.threads ?? nativeInfo().threads.threads;
  await withInterrupt(async (signal) => {
    const opponents = await findOpponents(flags, signal);
    await withBenchModel(flags, signal, async (path) => {
      const source = await openModel(path);
      if (source.format !== 'gguf') {
        const expected = 'a GGUF file, for llama.cpp reads no other';
        throw new EngineError('OPTION_INVALID', { option: '--model', value: path, expected });
      }
      const { vocabSize, contextLength } = readModelConfig(source);
      const progress = new ProgressBar('peers:');
      try {
        const run = { model: source.path, threads, vocabSize, signal };
        const load = loadOptionsOf(flags);
        const promptIds = await clearestPrompt(load, run);
        const result = await withNeighbours(neighbours, () =>
          comparePeers({
            ...run,
            ours: ours(thisProgram(), loadArguments({ ...flags, threads: undefined }), load),
            promptIds,
            opponents,
            workloads: workloadsOf(flags, contextLength),
            rounds,
            runs,
            onProgress: (what) => progress.say(what),
          }),
        );
        progress.clear();
        reportTokens(result, opponents);
        await printReport(
          reportOf({ name: source.path.split(/[\\/]/).at(-1)!, ...result.model }, besides(neighbours, result.rows)),
          flags.json,
        );
      } finally {
        progress.clear();
      }
    });
  });
}

/** Throws DEPENDENCY_MISSING if there is nobody to compare with. */
async function findOpponents(flags: PeersFlags, signal: AbortSignal): Promise<Contender[]> {
  const opponents: Contender[] = [];
  const folder = peersFolder();
  if (folder !== null && flags.install && !isInstalled(folder)) {
    note(`installing node-llama-cpp in ${folder}`);
    await installPeers(folder, signal);
  }
  if (folder !== null && isInstalled(folder)) opponents.push(nodeLlamaCpp(folder));
  if (flags.opponentBinary !== undefined) opponents.push(llamaBench(resolve(flags.opponentBinary)));
  if (opponents.length === 0) throw notInstalled(folder ?? 'bench/peers of the package');
  return opponents;
}

function workloadsOf(flags: PeersFlags, contextLength: number): (Workload & { kind: SpeedKind })[] {
  const promptTokens = flags.promptTokens ?? Math.min(512, contextLength - 1);
  const decodes = (flags.batch ?? [1, 8]).map((batch) => {
    const room = contextLength - contextNeeded({ batch, promptTokens: 1, generatedTokens: 1 }) + 1;
    const generatedTokens = flags.generatedTokens ?? Math.min(128, room);
    return { kind: 'decode', batch, promptTokens: 1, generatedTokens } as const;
  });
  return [{ kind: 'prefill', batch: 1, promptTokens, generatedTokens: 0 }, ...decodes];
}

function reportTokens({ agreement }: PeersResult, opponents: readonly Contender[]): void {
  for (const { name } of opponents) {
    const tokens = agreement.get(name);
    if (tokens === undefined) note(`${name}: it generates no tokens that could be compared`);
    else if (tokens.leading === tokens.compared) note(`${name}: all of ${tokens.compared} greedy tokens are the same`);
    else note(`${name}: greedy tokens are the same up to the first ${tokens.leading} of ${tokens.compared}`);
  }
}
