import { Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import type { Pooling } from '../serving/embedder.js';
import { choice, loadFlags, number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { note, Output } from './output.js';
import { ProgressBar } from './progress-bar.js';
import { readPrompt } from './prompt.js';

interface EmbedFlags extends LoadOptions {
  readonly file?: string;
  readonly pooling?: Pooling;
  readonly dimensions?: number;
  readonly similarity?: boolean;
  readonly json?: boolean;
}

/** Texts of one request; their vectors are written before the next. */
const REQUEST_SIZE = 512;
/** A table of all pairs is small enough to be read by anything up to here: 4 million numbers. */
const MAX_COMPARED = 2048;

export function embedCommand(): Command {
  const command = new Command('embed')
    .description('vectors of texts, L2-normalised: one JSON list a line, in the order of the texts')
    .argument('[texts...]', 'texts; `-` or nothing reads stdin, one text a line');
  for (const flag of loadFlags()) command.addOption(flag);
  return command
    .option('--file <path>', 'file with one text a line')
    .addOption(choice('--pooling <how>', "what becomes of a text's token vectors; default mean", ['mean', 'last']))
    .addOption(number('--dimensions <n>', 'keep the first n dimensions, then normalise; default all'))
    .addOption(new Option('--similarity', 'print the cosine of every pair of texts instead of vectors'))
    .option('--json', 'print one JSON object')
    .action((texts: string[], flags: EmbedFlags) => withInterrupt((signal) => embed(texts, flags, signal)));
}

async function embed(texts: readonly string[], flags: EmbedFlags, signal: AbortSignal): Promise<void> {
  const inputs = await readTexts(texts, flags.file);
  if (flags.similarity && inputs.length > MAX_COMPARED) {
    const expected = `at most ${MAX_COMPARED} texts`;
    throw new EngineError('OPTION_INVALID', { option: '--similarity', value: `${inputs.length} texts`, expected });
  }
  const output = new Output();
  const { pooling, dimensions } = flags;
  await using engine = await Engine.load({ ...flags, signal });
  if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);

  const isStreamed = !flags.json && !flags.similarity;
  const kept: Float32Array[] = [];
  let promptTokens = 0;
  const bar = new ProgressBar('embedding');
  for (let first = 0; first < inputs.length && !output.closed; first += REQUEST_SIZE) {
    const request = { inputs: inputs.slice(first, first + REQUEST_SIZE), pooling, dimensions, signal };
    const embeddings = await engine.embed(request).catch((error: unknown) => {
      bar.clear();
      throw counted(error, first);
    });
    promptTokens += embeddings.promptTokens;
    bar.clear();
    if (!isStreamed) kept.push(...embeddings.vectors);
    else await output.write(embeddings.vectors.map((vector) => `${JSON.stringify(numbersOf(vector))}\n`).join(''));
    if (!isStreamed || !output.stream.isTTY) bar.show(first + request.inputs.length, inputs.length);
  }
  bar.clear();
  if (isStreamed) return;

  const similarity = flags.similarity ? cosines(kept) : null;
  if (!flags.json) return output.write(table(similarity!));
  await output.json({
    model: engine.model.name,
    backend: engine.backend,
    embeddings: kept.map(numbersOf),
    ...(similarity !== null && { similarity }),
    usage: { prompt_tokens: promptTokens },
  });
}

/** From arguments, a file, or stdin; one source only. */
async function readTexts(texts: readonly string[], file: string | undefined): Promise<readonly string[]> {
  if (texts.length > 0 && file !== undefined) {
    throw new EngineError('OPTION_INVALID', { option: '--file', value: file, expected: 'no texts beside it' });
  }
  const isGiven = texts.length > 1 || (texts.length === 1 && texts[0] !== '-');
  return isGiven ? texts : (await readPrompt({ promptFile: file })).split(/\r?\n/);
}

/** The same error, with its input counted from the first text of all. */
function counted(error: unknown, first: number): unknown {
  if (!(error instanceof EngineError)) return error;
  const known: EngineError = error;
  const { input } = known.parameters as { input?: number };
  if (input === undefined) return known;
  return new EngineError(known.code, { ...known.parameters, input: first + input }, { cause: known });
}

/** Nine digits are all that a float32 has. */
function numbersOf(vector: Float32Array): number[] {
  return Array.from(vector, (value) => Number(value.toPrecision(9)));
}

/** Cosine of every pair of L2-normalised vectors, [n][n], to six decimals. */
function cosines(vectors: readonly Float32Array[]): number[][] {
  const rows = vectors.map(() => new Array<number>(vectors.length));
  for (const [i, a] of vectors.entries()) {
    for (let j = 0; j <= i; j++) {
      const b = vectors[j]!;
      let sum = 0;
      for (let k = 0; k < a.length; k++) sum += a[k]! * b[k]!;
      rows[i]![j] = rows[j]![i] = Number(sum.toFixed(6));
    }
  }
  return rows;
}

/** A row a text, three decimals, in columns. */
function table(rows: readonly (readonly number[])[]): string {
  return rows.map((row) => `${row.map((cosine) => cosine.toFixed(3).padStart(6)).join(' ')}\n`).join('');
}
