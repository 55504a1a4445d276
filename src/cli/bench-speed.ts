import { Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { baselineRows, readBaseline } from '../benchmark/baseline.js';
import { withNeighbours } from '../benchmark/neighbours.js';
import type { Program } from '../benchmark/ours.js';
import type { BenchRow } from '../benchmark/report.js';
import { benchmarkSpeed, type SpeedKind } from '../benchmark/speed.js';
import type { LoadOptions } from '../library/load-options.js';
import { type BenchModelFlags, benchModelFlags, withBenchModel } from './bench-model.js';
import { baselineFlag, jsonFlag, printReport, reportOf } from './bench-output.js';
import { loadFlags, maxStepsFlag, number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { note } from './output.js';
import { ProgressBar } from './progress-bar.js';

/** Flags of LoadOptions that measurements decide themselves, or that come with the model. */
const ownFlags = ['--model', '--context-size'];

export interface BenchLoadFlags extends Omit<LoadOptions, 'model' | 'contextSize' | 'batchSize' | 'signal'> {}

interface SpeedFlags extends BenchModelFlags, BenchLoadFlags {
  readonly promptTokens?: number;
  readonly generatedTokens?: number;
  readonly batch?: readonly number[];
  readonly runs?: number;
  readonly neighbours?: number;
  readonly check: boolean;
  readonly baseline?: string;
  readonly json?: string | true;
}

export function benchLoadFlags(): Option[] {
  return [...loadFlags().filter(({ long }) => !ownFlags.includes(long!)), maxStepsFlag()];
}

/** What decides how a model is loaded, apart from all other flags. */
export function loadOptionsOf(flags: BenchLoadFlags): BenchLoadFlags {
  const names = benchLoadFlags().map((flag) => flag.attributeName());
  return Object.fromEntries(Object.entries(flags).filter(([name]) => names.includes(name)));
}

/** The same as arguments, for a process of this program; switches are not among these flags. */
export function loadArguments(flags: BenchLoadFlags): string[] {
  const values = loadOptionsOf(flags) as Readonly<Record<string, unknown>>;
  return benchLoadFlags().flatMap((flag) => {
    const value = values[flag.attributeName()];
    return value === undefined ? [] : [flag.long!, String(value)];
  });
}

/** Starts this program once more, as it was started. */
export function thisProgram(): Program {
  return [process.execPath, ...process.execArgv, process.argv[1]!];
}

export const batchFlag = (description = 'sequences at once, e.g. 1,8: a row each; default 1') =>
  new Option('--batch <list>', description).argParser(parseBatch);

export const neighboursFlag = () =>
  number('--neighbours <n>', 'busy loops of other processes beside what is measured; default 0');

export function speedCommand(kind: SpeedKind): Command {
  const descriptions = {
    prefill: 'tokens per second of reading prompts',
    decode: 'tokens per second of generating, while all sequences generate',
  };
  const command = new Command(kind).description(descriptions[kind]);
  for (const flag of [...benchModelFlags(), ...benchLoadFlags()]) command.addOption(flag);
  command.addOption(number('--prompt-tokens <n>', `of each sequence; default ${kind === 'prefill' ? 512 : 1}`));
  if (kind === 'decode') command.addOption(number('--generated-tokens <n>', 'of each sequence; default 128'));
  return command
    .addOption(batchFlag())
    .addOption(number('--runs <n>', 'measurements of each row; default 5'))
    .addOption(neighboursFlag())
    .addOption(new Option('--no-check', 'do not compare tokens of one thread alone with those of what is timed'))
    .addOption(baselineFlag())
    .addOption(jsonFlag())
    .action((flags: SpeedFlags) => speed(kind, flags));
}

async function speed(kind: SpeedKind, flags: SpeedFlags): Promise<void> {
  const { promptTokens, generatedTokens, batch, runs, neighbours = 0, check } = flags;
  const baseline = flags.baseline === undefined ? undefined : readBaseline(flags.baseline);
  await withInterrupt((signal) =>
    withBenchModel(flags, signal, async (model) => {
      const progress = new ProgressBar(`${kind}:`);
      try {
        const { rows, ...result } = await withNeighbours(neighbours, () =>
          benchmarkSpeed({
            kind,
            model,
            load: loadOptionsOf(flags),
            promptTokens,
            generatedTokens,
            batches: batch,
            runs,
            check,
            baseline,
            signal,
            onProgress: (what) => progress.say(what),
          }),
        );
        progress.clear();
        if (result.fallbackReason !== null) note(`engine: ${result.fallbackReason}`);
        const others = baseline === undefined ? [] : baselineRows(rows, baseline);
        await printReport(reportOf(result.model, [...besides(neighbours, rows), ...others]), flags.json);
      } finally {
        progress.clear();
      }
    }),
  );
}

/** Rows that say how many neighbours there were, if any. */
export function besides(neighbours: number, rows: readonly BenchRow[]): readonly BenchRow[] {
  return neighbours === 0 ? rows : rows.map((row) => ({ ...row, neighbours }));
}

function parseBatch(value: string): number[] {
  const batches = value.split(',').map(Number);
  if (batches.length <= 16 && batches.every((batch) => Number.isInteger(batch) && batch > 0)) return batches;
  const expected = 'at most 16 whole numbers from 1, separated by commas';
  throw new EngineError('OPTION_INVALID', { option: '--batch', value, expected });
}
