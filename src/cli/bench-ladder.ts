import { Command, Option } from 'commander';
import { nativeInfo } from '../backend/native.js';
import { wholeNumber } from '../base/whole-number.js';
import { drawBarChart, type OutlinedValue } from '../benchmark/bar-chart.js';
import { type Baseline, baselineRows, counterpart, readBaseline } from '../benchmark/baseline.js';
import { climbLadder } from '../benchmark/ladder.js';
import { checkRuns } from '../benchmark/repetition.js';
import type { BenchReport, BenchRow } from '../benchmark/report.js';
import { type BenchModelFlags, benchModelFlags, withBenchModel } from './bench-model.js';
import { baselineFlag, jsonFlag, printReport, reportOf, writeText } from './bench-output.js';
import { type BenchLoadFlags, benchLoadFlags, thisProgram } from './bench-speed.js';
import { number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { ProgressBar } from './progress-bar.js';
import { readPrompt } from './prompt.js';

interface LadderFlags extends BenchModelFlags, Pick<BenchLoadFlags, 'backend'> {
  readonly threads?: number;
  readonly file?: string;
  readonly qualityTokens?: number;
  readonly promptTokens?: number;
  readonly contextTokens?: number;
  readonly generatedTokens?: number;
  readonly baseline?: string;
  readonly runs?: number;
  readonly svg?: string;
  readonly json?: string | true;
}

/** Tokens of a text; a million take hours. */
const MAX_QUALITY_TOKENS = 1 << 20;

export function ladderCommand(): Command {
  const command = new Command('ladder').description(
    'one model run step by step faster (by backend: plain C++, SIMD, threads; CUDA graphs), INT8, INT4; with --file, quality beside speed',
  );
  const backendFlag = benchLoadFlags().find(({ long }) => long === '--backend')!;
  for (const flag of [...benchModelFlags(), backendFlag]) command.addOption(flag);
  return command
    .addOption(number('--threads <n>', 'from the step on that adds threads; default: as many as this process may use'))
    .addOption(new Option('-f, --file <path>', 'text on which quality is measured; `-` reads stdin'))
    .addOption(number('--quality-tokens <n>', 'of the text; default 2048'))
    .addOption(number('--prompt-tokens <n>', 'of a prefill; default 128'))
    .addOption(number('--context-tokens <n>', 'of the prompt before a decode; default 1'))
    .addOption(number('--generated-tokens <n>', 'of a decode; default 32'))
    .addOption(baselineFlag())
    .addOption(number('--runs <n>', 'measurements of each step; default 3'))
    .addOption(new Option('--svg <path>', 'draw a chart'))
    .addOption(jsonFlag())
    .action(ladder);
}

async function ladder(flags: LadderFlags): Promise<void> {
  const { runs = 3, promptTokens = 128, contextTokens = 1, generatedTokens = 32, qualityTokens = 2048 } = flags;
  checkRuns('--runs', runs);
  wholeNumber('--quality-tokens', qualityTokens, 2, MAX_QUALITY_TOKENS);
  const threads = flags.threads ?? nativeInfo().threads.threads;
  const baseline = flags.baseline === undefined ? undefined : readBaseline(flags.baseline);
  const content = flags.file === undefined ? undefined : await readPrompt({ promptFile: flags.file });
  const measure = async (model: string, signal: AbortSignal) => {
    const progress = new ProgressBar('ladder:');
    try {
      const result = await climbLadder({
        program: thisProgram(),
        model,
        backend: flags.backend,
        threads,
        promptTokens,
        contextTokens,
        generatedTokens,
        runs,
        baseline,
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
  const others = baseline === undefined ? [] : baselineRows(report.rows, baseline);
  await printReport({ ...report, rows: [...report.rows, ...others] }, flags.json);
  if (flags.svg !== undefined) writeText(flags.svg, drawReport(report, baseline));
}

function drawReport({ model, machine, rows }: BenchReport, baseline: Baseline | undefined): string {
  const of = (kind: string) => rows.filter(({ name }) => name.endsWith(`: ${kind}`));
  const decode = of('decode');
  const speed = (kind: string) => {
    const values = of(kind).map((row) => row.tokens_per_second.median);
    const times = (value: number) => `${shortRate(value)} (${(value / values[0]!).toFixed(1)}×)`;
    const outlines = baseline && of(kind).map((row) => outlineOf(counterpart(row, baseline)));
    const bars = { title: `${kind}, tokens per second`, kind: 'bars', values, format: times } as const;
    return outlines === undefined ? bars : { ...bars, outlines };
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
    subtitle: [placeOf(rows, machine.cpu, baseline), `node ${machine.node}`, ...outlined(baseline)].join(', '),
    labels: decode.map(({ name }) => name.slice(0, name.lastIndexOf(':'))),
    panels: [speed('prefill'), speed('decode'), ...(perplexity.length > 0 ? [quality] : [])],
  });
}

/** What the rows ran on. */
function placeOf(rows: readonly BenchRow[], cpu: string, baseline: Baseline | undefined): string {
  const { backend } = rows[0]!;
  if (!backend.startsWith('native-cpu')) return baseline?.gpu ? `${backend} on ${baseline.gpu}` : backend;
  return `${cpu}, ${Math.max(...rows.map(({ threads = 1 }) => threads))} threads`;
}

function outlined(baseline: Baseline | undefined): string[] {
  return baseline === undefined ? [] : [`outlined: ${baseline.rows[0]!.backend}`];
}

function outlineOf(row: BenchRow | null): OutlinedValue | null {
  if (row === null) return null;
  const { median } = row.tokens_per_second;
  return { value: median, label: `${row.name.split(':')[0]} ${shortRate(median)}` };
}

function shortRate(rate: number): string {
  return rate.toFixed(rate < 10 ? 1 : 0);
}
