import { Command, Option } from 'commander';
import { threadCount } from '../backend/thread-count.js';
import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import { type CalibrationText, MAX_CALIBRATION_TOKENS, MIN_CALIBRATION_TOKENS } from '../conversion/calibration.js';
import { quantiseModel } from '../conversion/quantise-model.js';
import type { QuantisationSummary, Totals } from '../conversion/summary.js';
import { openTokenizer } from '../library/open-tokenizer.js';
import type { QuantisedTypes } from '../model/quantised-types.js';
import type { PackedDType } from '../tensor/packed.js';
import { choice, number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { formatBytes, note, Output } from './output.js';
import { ProgressBar } from './progress-bar.js';
import { readPrompt } from './prompt.js';

interface QuantizeFlags {
  readonly type?: 'int8' | 'int4';
  readonly groupSize?: number;
  readonly symmetric?: boolean;
  readonly headType?: 'int8' | 'int4' | 'keep';
  readonly method?: 'rtn' | 'gptq';
  readonly calibration?: string;
  readonly calibrationTokens?: number;
  readonly threads?: number;
  readonly force?: boolean;
  readonly json?: boolean;
}

const MAX_THREADS = 256;
const DEFAULT_CALIBRATION_TOKENS = 32768;

export function quantizeCommand(): Command {
  return new Command('quantize')
    .description('write a quantised copy of a model, which loads without being made again')
    .argument('<in>', 'GGUF or safetensors file, or a folder with config.json')
    .argument('<out>', 'a .gguf file for GGUF, a folder for safetensors')
    .addOption(choice('--type <type>', "storage of the layers' matrices; required", ['int8', 'int4']))
    .addOption(number('--group-size <n>', 'weights that share a scale: 32, with int4 also 64 or 128; default 32'))
    .addOption(new Option('--symmetric', 'int4 without minimums: 4.25 instead of 4.5 bits a weight, less exact'))
    .addOption(choice('--head-type <type>', 'storage of embeddings and head; default int8', ['int8', 'int4', 'keep']))
    .addOption(choice('--method <method>', 'to the nearest, or with errors fed back; default rtn', ['rtn', 'gptq']))
    .addOption(new Option('--calibration <path>', 'with gptq: a text like those the model is for; `-` reads stdin'))
    .addOption(number('--calibration-tokens <n>', 'use only this many tokens of it; default 32768'))
    .addOption(number('--threads <n>', 'CPU threads; default: as many as this process may use'))
    .addOption(new Option('--force', 'replace what is at the output path'))
    .option('--json', 'print one JSON object')
    .action(quantize);
}

async function quantize(input: string, output: string, flags: QuantizeFlags): Promise<void> {
  const types = typesOf(flags);
  const threads = wholeNumber('--threads', flags.threads ?? threadCount().threads, 1, MAX_THREADS);
  const calibration = await calibrationText(input, flags);
  const start = performance.now();
  const bar = new ProgressBar(`quantising to ${types.layers}`);
  let summary: QuantisationSummary;
  try {
    summary = await withInterrupt((signal) => {
      const onProgress = (done: number, total: number, tensor: string) => {
        bar.show(done, total, `${formatBytes(done)}, ${tensor}`);
      };
      const onCalibration = (done: number, total: number) => bar.show(done, total, 'tokens of the calibration text');
      const { force } = flags;
      return quantiseModel(input, output, { types, threads, force, calibration, signal, onProgress, onCalibration });
    });
  } finally {
    bar.clear();
  }
  const seconds = (performance.now() - start) / 1000;
  const stdout = new Output();
  await (flags.json
    ? stdout.json(report(output, summary, types, flags.method ?? 'rtn', seconds))
    : stdout.write(table(summary)));
  if (flags.json) return;
  for (const { tensor, columns, dtype } of summary.exceptions) {
    note(`engine: ${tensor} is ${dtype}, for its rows have ${columns} values`);
  }
  note(`wrote ${output} in ${seconds.toFixed(1)} s`);
}

/** Throws OPTION_INVALID. */
function typesOf({ type, groupSize = 32, symmetric = false, headType = 'int8' }: QuantizeFlags): QuantisedTypes {
  const refuse = (option: string, value: unknown, expected: string) =>
    new EngineError('OPTION_INVALID', { option, value, expected });
  if (type === undefined) throw refuse('--type', undefined, 'int8 or int4');
  const sizes = symmetric || type === 'int8' ? [32] : [32, 64, 128];
  if (!sizes.includes(groupSize)) {
    const kind = symmetric ? '--symmetric' : `--type ${type}`;
    throw refuse('--group-size', groupSize, `${sizes.join(', ')} with ${kind}`);
  }
  if (symmetric && type === 'int8') throw refuse('--symmetric', true, '--type int4 with it; int8 always is symmetric');
  const groups: Readonly<Record<number, PackedDType>> = { 32: 'int4', 64: 'int4_g64', 128: 'int4_g128' };
  const int4 = symmetric ? 'int4_sym' : groups[groupSize]!;
  return {
    layers: type === 'int8' ? 'int8' : int4,
    head: headType === 'keep' ? null : headType === 'int8' ? 'int8' : int4,
  };
}

/** What GPTQ is to learn from; undefined without it. Throws OPTION_INVALID, TOKENIZER_MISSING and what reading throws. */
async function calibrationText(model: string, flags: QuantizeFlags): Promise<CalibrationText | undefined> {
  const { method = 'rtn', calibration, calibrationTokens = DEFAULT_CALIBRATION_TOKENS } = flags;
  if (method === 'rtn') {
    if (calibration === undefined) return undefined;
    throw new EngineError('OPTION_INVALID', {
      option: '--calibration',
      value: calibration,
      expected: '--method gptq with it',
    });
  }
  if (calibration === undefined) {
    const expected = 'a text file, which --method gptq needs';
    throw new EngineError('OPTION_INVALID', { option: '--calibration', value: undefined, expected });
  }
  wholeNumber('--calibration-tokens', calibrationTokens, MIN_CALIBRATION_TOKENS, MAX_CALIBRATION_TOKENS);
  const tokenizer = await openTokenizer(model);
  const text = await readPrompt({ promptFile: calibration });
  const tokenIds = tokenizer.encode(text, { addSpecialTokens: false });
  return { tokenIds: tokenIds.slice(0, calibrationTokens), prefix: tokenizer.encode('') };
}

/** One line for each storage type of the new file, and the whole. */
function table({ types, total }: QuantisationSummary): string {
  const heading = ['type', 'tensors', 'weights', 'before', 'after', 'bits/weight', 'error'];
  const line = (name: string, totals: Totals) => [
    name,
    String(totals.tensors),
    totals.weights.toLocaleString('en-US'),
    formatBytes(totals.bytesBefore),
    formatBytes(totals.bytesAfter),
    totals.bitsPerWeight.toFixed(2),
    totals.relativeError === 0 ? '-' : `${(100 * totals.relativeError).toFixed(2)} %`,
  ];
  const lines = [heading, ...types.map((type) => line(type.dtype, type)), line('all', total)];
  const widths = heading.map((_, column) => Math.max(...lines.map((cells) => cells[column]!.length)));
  const align = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
  return lines.map((cells) => `${cells.map(align).join('  ')}\n`).join('');
}

function report(output: string, summary: QuantisationSummary, types: QuantisedTypes, method: string, seconds: number) {
  const named = (totals: Totals) => ({
    tensors: totals.tensors,
    weights: totals.weights,
    bytes_before: totals.bytesBefore,
    bytes_after: totals.bytesAfter,
    bits_per_weight: totals.bitsPerWeight,
    relative_error: totals.relativeError,
  });
  return {
    output,
    method,
    type: types.layers,
    head_type: types.head ?? 'keep',
    quantiser: summary.quantiser,
    seconds,
    types: summary.types.map((type) => ({ dtype: type.dtype, ...named(type) })),
    total: named(summary.total),
    exceptions: summary.exceptions,
  };
}
