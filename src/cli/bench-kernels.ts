import { Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { benchmarkKernels, type KernelReport, type KernelRow, type KernelShape } from '../benchmark/kernels.js';
import type { Summary } from '../benchmark/statistics.js';
import type { DType } from '../tensor/dtype.js';
import { commandLine, formatColumns, jsonFlag, machineLine, writeText } from './bench-output.js';
import { number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { Output } from './output.js';
import { ProgressBar } from './progress-bar.js';

interface KernelFlags {
  readonly threads?: readonly number[];
  readonly shape?: readonly KernelShape[];
  readonly tokens?: readonly number[];
  readonly types?: readonly DType[];
  readonly runs?: number;
  readonly json?: string | true;
}

const MAX_ENTRIES = 32;

export function kernelsCommand(): Command {
  return new Command('kernels')
    .description('time kernels one by one on random data, beside what this machine can read and multiply at most')
    .addOption(
      new Option('--threads <list>', 'e.g. 1,2; default 1 and as many as this process may use').argParser(
        numbersFor('--threads'),
      ),
    )
    .addOption(
      new Option(
        '--shape <list>',
        'rows x columns of matrices, e.g. 2048x5632,32000x2048; default 2048x5632, for one token also 32000x2048',
      ).argParser(parseShapes),
    )
    .addOption(new Option('--tokens <list>', 'rows of activations; default 1,8,512').argParser(numbersFor('--tokens')))
    .addOption(
      new Option('--types <list>', 'storage types of matrices, e.g. q4_0,int4; then linear layers only').argParser(
        (value: string) => entries('--types', value) as DType[],
      ),
    )
    .addOption(number('--runs <n>', 'of each kernel at most; they end after half a second; default 30'))
    .addOption(jsonFlag())
    .action(kernels);
}

async function kernels({ shape, json, ...flags }: KernelFlags): Promise<void> {
  const progress = new ProgressBar('kernels:');
  const report = await withInterrupt(async (signal) => {
    const onProgress = (what: string) => progress.say(what);
    try {
      return await benchmarkKernels(commandLine(), { ...flags, shapes: shape, signal, onProgress });
    } finally {
      progress.clear();
    }
  });
  const output = new Output();
  if (json === true) return output.json(report);
  await output.write(format(report));
  if (json !== undefined) writeText(json, `${JSON.stringify(report, null, 2)}\n`);
}

function format({ machine, peaks, rows }: KernelReport): string {
  const range = ({ median, min, max }: Summary) => `${rate(median)} (${rate(min)} … ${rate(max)})`;
  const peakLines = peaks.map(({ threads, what, gb_per_second: gb, gop_per_second: gop }) => [
    what,
    String(threads),
    gb ? range(gb) : '',
    gop ? range(gop) : '',
  ]);
  const peakTable = formatColumns(['peak', 'threads', 'GB/s', 'GOP/s'], peakLines, 1);
  return `${machineLine(machine)}\n\n${peakTable}\n${formatColumns(headings, rows.map(cellsOf), 3)}`;
}

const headings = [
  'kernel',
  'dtype',
  'shape',
  'tokens',
  'threads',
  'µs',
  'from … to',
  'runs',
  'GB/s',
  '% of peak',
  'GOP/s',
  '% of peak',
];

function cellsOf(row: KernelRow): string[] {
  const { microseconds: time } = row;
  const percent = (value: number | undefined) => value?.toFixed(0) ?? '';
  return [
    row.name,
    row.dtype,
    row.shape,
    String(row.batch),
    String(row.threads),
    rate(time.median),
    `${rate(time.min)} … ${rate(time.max)}`,
    String(time.runs),
    rate(row.gb_per_second),
    percent(row.percent_of_peak),
    rate(row.gop_per_second),
    percent(row.percent_of_peak_compute),
  ];
}

function rate(value: number | undefined): string {
  return value?.toFixed(value < 100 ? 1 : 0) ?? '';
}

/** Throws OPTION_INVALID. */
function entries(option: string, value: string): string[] {
  const list = value.split(',').map((entry) => entry.trim());
  if (list.length <= MAX_ENTRIES && list.every((entry) => entry !== '')) return list;
  const expected = `at most ${MAX_ENTRIES} entries, separated by commas`;
  throw new EngineError('OPTION_INVALID', { option, value, expected });
}

function numbersFor(option: string) {
  return (value: string): number[] => entries(option, value).map(Number);
}

function parseShapes(value: string): KernelShape[] {
  return entries('--shape', value).map((entry) => {
    const [, rows, columns] = /^(\d+)x(\d+)$/.exec(entry) ?? [];
    if (columns !== undefined) return { rows: Number(rows), columns: Number(columns) };
    const expected = 'rows x columns such as 2048x5632, separated by commas';
    throw new EngineError('OPTION_INVALID', { option: '--shape', value: entry, expected });
  });
}
