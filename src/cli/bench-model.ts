import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { requireEmbeddedModel } from '../library/embedded-model.js';
import type { ShapeName } from '../synthetic/shapes.js';
import type { SyntheticType } from '../synthetic/types.js';
import { makeSynthetic, parseShape, seedFlag, typeFlag } from './bench-synthetic.js';
import { modelFlag } from './flags.js';
import { note } from './output.js';

/** Which model is measured. */
export interface BenchModelFlags {
  readonly model?: string;
  readonly synthetic?: ShapeName;
  readonly type?: SyntheticType;
  readonly seed?: number;
  readonly keep?: boolean;
}

export function benchModelFlags(): Option[] {
  return [
    modelFlag(),
    new Option('--synthetic <shape>', 'make a model with these sizes and random weights for this run').argParser(
      parseShape,
    ),
    typeFlag(),
    seedFlag(),
    new Option('--keep', 'do not remove the synthetic model afterwards'),
  ];
}

/** Gives the path of the model to the action; a synthetic one is made before and removed afterwards. */
export async function withBenchModel<T>(
  flags: BenchModelFlags,
  signal: AbortSignal,
  action: (path: string) => Promise<T>,
  defaultType: SyntheticType = 'q4_0',
): Promise<T> {
  const { model, synthetic, type = defaultType, keep = false } = flags;
  if (synthetic === undefined) {
    for (const option of ['type', 'seed', 'keep'] as const) {
      if (flags[option] === undefined) continue;
      const expected = '--synthetic with it';
      throw new EngineError('OPTION_INVALID', { option: `--${option}`, value: flags[option], expected });
    }
    return action(model ?? requireEmbeddedModel());
  }
  if (model !== undefined) {
    throw new EngineError('OPTION_INVALID', { option: '--synthetic', value: synthetic, expected: 'no --model' });
  }
  const folder = mkdtempSync(join(tmpdir(), 'engine-bench-'));
  try {
    const path = join(folder, `${synthetic}-${type}.gguf`);
    await makeSynthetic(path, synthetic, { ...flags, type }, signal);
    const result = await action(path);
    if (keep) note(`kept ${path}`);
    return result;
  } finally {
    if (!keep) rmSync(folder, { recursive: true, force: true });
  }
}
