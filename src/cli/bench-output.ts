import { writeFileSync } from 'node:fs';
import { Option } from 'commander';
import { EngineError } from '../base/errors.js';
import type { Machine } from '../benchmark/machine.js';
import { type BenchModel, type BenchReport, type BenchRow, makeReport } from '../benchmark/report.js';
import { note, Output } from './output.js';

/** Without a path the report goes to stdout, in place of the table. */
export const jsonFlag = () =>
  new Option('--json [path]', 'write the report as JSON to a file, or without one to stdout in place of the table');

/** Of readBaseline. */
export const baselineFlag = () =>
  new Option('--baseline <path>', 'JSON report of another engine at the same sizes (bench/gpu): print ratios to it');

/** The report of what was measured, with the command as it was typed. */
export function reportOf(model: BenchModel, rows: readonly BenchRow[]): BenchReport {
  return makeReport(commandLine(), model, rows);
}

/** As it was typed. */
export function commandLine(): string {
  const quoted = process.argv.slice(2).map((word) => (/^[\w./:=,@%+-]+$/.test(word) ? word : JSON.stringify(word)));
  return ['engine', ...quoted].join(' ');
}

/** Throws FILE_UNWRITABLE. */
export async function printReport(report: BenchReport, json: string | true | undefined): Promise<void> {
  const output = new Output();
  if (json === true) return output.json(report);
  await output.write(formatReport(report));
  if (json !== undefined) writeText(json, `${JSON.stringify(report, null, 2)}\n`);
}

/** Throws FILE_UNWRITABLE. */
export function writeText(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new EngineError('FILE_UNWRITABLE', { path, reason: (error as Error).message }, { cause: error });
  }
  note(`wrote ${path}`);
}

function formatReport({ machine, model, rows }: BenchReport): string {
  const heading = [
    `${model.name}: ${model.architecture}, ${(model.parameters / 1e6).toFixed(1)} million parameters, ${(model.bytes / 1e6).toFixed(1)} MB`,
    machineLine(machine),
  ];
  return `${heading.join('\n')}\n\n${formatColumns(headings, rows.map(cellsOf), 3)}`;
}

export function machineLine(machine: Machine): string {
  const quota = machine.cpu_quota === null ? '' : `, quota ${machine.cpu_quota}`;
  return `${machine.cpu}, ${machine.processors} processors on ${machine.cores} cores${quota}, node ${machine.node}`;
}

/** A table whose first `numLeft` columns begin at the left. Columns that no row fills are left out. */
export function formatColumns(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  numLeft: number,
): string {
  const columns = titles.flatMap((title, i) =>
    rows.some((row) => row[i] !== '') ? [[title, ...rows.map((row) => row[i]!)]] : [],
  );
  const widths = columns.map((column) => Math.max(...column.map((cell) => cell.length)));
  const line = (row: number) =>
    columns
      .map((column, i) => (i < numLeft ? column[row]!.padEnd(widths[i]!) : column[row]!.padStart(widths[i]!)))
      .join('  ');
  return Array.from({ length: rows.length + 1 }, (_, row) => `${line(row).trimEnd()}\n`).join('');
}

const headings = [
  'what',
  'backend',
  'dtype',
  'batch',
  'prompt',
  'generated',
  'tokens/s',
  'from … to',
  'runs',
  'GB/s',
  '% of peak',
  '% of datasheet',
  'GOP/s',
  'ratio',
  'from … to',
  'perplexity',
  'KL mean',
  'KL 99 %',
  'same top-1',
];

function cellsOf(row: BenchRow): string[] {
  const { tokens_per_second: rate, quality, ratio, gop_per_second: gop } = row;
  const percent = row.name.startsWith('prefill') ? row.percent_of_peak_compute : row.percent_of_peak;
  const optional = (value: number | undefined, digits: number) => value?.toFixed(digits) ?? '';
  return [
    row.name,
    row.backend,
    row.dtype,
    String(row.batch),
    String(row.prompt_tokens),
    String(row.generated_tokens),
    short(rate.median),
    `${short(rate.min)} … ${short(rate.max)}`,
    String(rate.runs),
    optional(row.gb_per_second, 1),
    optional(percent, 0),
    optional(row.percent_of_datasheet, 0),
    optional(gop, 0),
    optional(ratio?.median, 2),
    ratio === undefined ? '' : `${ratio.min.toFixed(2)} … ${ratio.max.toFixed(2)}`,
    optional(quality?.perplexity, 3),
    optional(quality?.kl_mean, 5),
    optional(quality?.kl_p99, 4),
    quality === undefined ? '' : `${(100 * quality.top1_agreement).toFixed(1)} %`,
  ];
}

/** At least three digits. */
function short(rate: number): string {
  return rate.toFixed(rate < 10 ? 2 : rate < 100 ? 1 : 0);
}
