import { resolve } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import { writeSyntheticModel } from '../synthetic/model.js';
import { type ShapeName, shapeNames } from '../synthetic/shapes.js';
import { type SyntheticType, syntheticTypeNames } from '../synthetic/types.js';
import { choice, number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { formatBytes, note } from './output.js';
import { ProgressBar } from './progress-bar.js';

/** 32 bits. */
const MAX_SEED = 2 ** 32 - 1;

export const typeFlag = () => choice('--type <type>', 'storage of its matrices; default q4_0', syntheticTypeNames);
export const seedFlag = () => number('--seed <n>', 'same seed, same bytes; default 0');

export function syntheticCommand(): Command {
  return new Command('synthetic')
    .description(
      'write a GGUF file with the sizes of a published model, random weights and a vocabulary that fits; any engine can load it',
    )
    .addArgument(new Argument('<shape>', shapeNames.join(', ')).argParser(parseShape))
    .addOption(typeFlag())
    .addOption(seedFlag())
    .addOption(new Option('-o, --out <path>', 'the file to write'))
    .action(synthetic);
}

async function synthetic(
  shape: ShapeName,
  flags: { readonly type?: SyntheticType; readonly seed?: number; readonly out?: string },
): Promise<void> {
  const { out } = flags;
  if (out === undefined) throw new EngineError('OPTION_INVALID', { option: '--out', value: out, expected: 'a path' });
  await withInterrupt((signal) => makeSynthetic(resolve(out), shape, flags, signal));
}

/** Writes a synthetic model with a progress bar on a terminal. */
export async function makeSynthetic(
  path: string,
  shape: ShapeName,
  { type = 'q4_0', seed = 0 }: { readonly type?: SyntheticType | undefined; readonly seed?: number | undefined },
  signal: AbortSignal,
): Promise<void> {
  wholeNumber('--seed', seed, 0, MAX_SEED);
  const bar = new ProgressBar(`writing ${shape} ${type}`);
  let size = 0;
  try {
    const onProgress = (done: number, total: number) => {
      size = total;
      bar.show(done, total, formatBytes(done));
    };
    await writeSyntheticModel(path, { shape, type, seed, signal, onProgress });
  } finally {
    bar.clear();
  }
  note(`wrote ${path}: ${shape} as ${type}, ${formatBytes(size)} of random weights`);
}

/** Throws OPTION_INVALID. */
export function parseShape(value: string): ShapeName {
  const shape = shapeNames.find((name) => name === value);
  if (shape !== undefined) return shape;
  throw new EngineError('OPTION_INVALID', { option: 'shape', value, expected: `one of ${shapeNames.join(', ')}` });
}
