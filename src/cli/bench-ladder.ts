import { Command, Option } from 'commander';
import { nativeInfo } from '../backend/native.js';
import { wholeNumber } from '../base/whole-number.js';
import { drawBarChart } from '../benchmark/bar-chart.js';
import { climbLadder } from '../benchmark/ladder.js';
import { checkRuns } from '../benchmark/repetition.js';
import type { BenchReport, BenchRow } from '../benchmark/report.js';
import { type BenchModelFlags, benchModelFlags, withBenchModel } from './bench-model.js';
import { jsonFlag, printReport, reportOf, writeText } from './bench-output.js';
import { thisProgram } from './bench-speed.js';
import { number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { ProgressBar } from './progress-bar.js';
import { readPrompt } from './prompt.js';

interface LadderFlags extends BenchModelFlags {
  readonly threads?: number;
  readonly file?: string;
  readonly qualityTokens?: number;
  readonly promptTokens?: number;
  readonly generatedTokens?: number;
  readonly runs?: number;
  readonly svg?: string;
  readonly json?: string | true;
}

/** Tokens of a text; a million take hours. */
const MAX_QUALITY_TOKENS = 1 << 20;

export function ladderCommand(): Command {
  const command = new Command('ladder').description(
    'one model run step by step faster: plain C++, SIMD, threads, INT8, INT4; with --file, quality beside speed',
  );
  for (const flag of benchModelFlags()) command.addOption(flag);
  return command
    .addOption(number('--threads <n>', 'from the step on that adds threads; default: as many as this process may use'))
    .addOption(new Option('-f, --file <path>', 'text on which quality is measured; `-` reads stdin'))
    .addOption(number('--quality-tokens <n>', 'of the text; default 2048'))
    .addOption(number('--prompt-tokens <n>', 'of a prefill; default 128'))
    .addOption(number('--generated-tokens <n>', 'of a decode; default 32'))
    .addOption(number('--runs <n>', 'measurements of each step; default 3'))
    .addOption(new Option('--svg <path>', 'draw a chart'))
    .addOption(jsonFlag())
    .action(ladder);
}

async function ladder(flags: LadderFlags): Promise<void> {
  const { runs = 3, promptTokens = 128, generatedTokens = 32, qualityTokens = 2048 } = flags;
  checkRuns('--runs', runs);
  wholeNumber('--quality-tokens', qualityTokens, 2, MAX_QUALITY_TOKENS);
  const threads = flags.threads ?? nativeInfo().threads.threads;
  const content = flags.file === undefined ? undefined : await readPrompt({ promptFile: flags.file });
  const measure = async (model: string, signal: AbortSignal) => {
    const progress = new ProgressBar('ladder:');
    try {
      const result = await climbLadder({
        program: thisProgram(),
        model,
        threads,
        promptTokens,
        generatedTokens,
        runs,
        ...(content !== undefined && { text: { content, maxTokens: qualityTokens } }),
        signal,
        onProgress: (what) => progress.say(what),
      });
      return reportOf(result.model, result.rows);
    } finally {
      progress.clear();
    }
  };
  const report = await withInterrupt((signal) =>
    withBenchModel(flags, signal, (model) => measure(model, signal), 'f16'),
  );
  await printReport(report, flags.json);
  if (flags.svg !== undefined) writeText(flags.svg, drawReport(report));
}

function drawReport({ model, machine, rows }: BenchReport): string {
  const of = (kind: string) => rows.filter(({ name }) => name.endsWith(`: ${kind}`));
  const decode = of('decode');
  const speed = (kind: string) => {
    const values = of(kind).map((row) => row.tokens_per_second.median);
    const times = (value: number) => `${shortRate(value)} (${(value / values[0]!).toFixed(1)}×)`;
    return { title: `${kind}, tokens per second`, kind: 'bars', values, format: times } as const;
  };
  const perplexity = decode.flatMap(({ quality }: BenchRow) => (quality === undefined ? [] : [quality.perplexity]));
  const quality = {
    title: 'perplexity',
    kind: 'line',
    values: perplexity,
    format: (v: number) => v.toFixed(3),
  } as const;
  return drawBarChart({
    title: `${model.name}: speed, step by step`,
    subtitle: `${machine.cpu}, ${Math.max(...rows.map(({ threads = 1 }) => threads))} threads, node ${machine.node}`,
    labels: decode.map(({ name }) => name.slice(0, name.lastIndexOf(':'))),
    panels: [speed('prefill'), speed('decode'), ...(perplexity.length > 0 ? [quality] : [])],
  });
}

function shortRate(rate: number): string {
  return rate.toFixed(rate < 10 ? 1 : 0);
}
