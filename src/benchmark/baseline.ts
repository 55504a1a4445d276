import { readFileSync, statSync } from 'node:fs';
import { EngineError } from '../base/errors.js';
import type { BenchRow } from './report.js';
import type { Summary } from './statistics.js';

/** A report of another engine on the same machine (bench/gpu/measure.py), or an older one of ours. */
export interface Baseline {
  readonly path: string;
  /** What it ran on, where the report says so. */
  readonly gpu: string | null;
  readonly parameters: number;
  readonly rows: readonly BenchRow[];
}

/** What is compared: rates of other sizes say nothing about ours. */
export type Compared = Pick<BenchRow, 'batch' | 'prompt_tokens' | 'generated_tokens'>;

const MAX_BYTES = 16 * 1024 * 1024;
const MAX_ROWS = 1000;
/** Of names in the file, in UTF-16 code units. */
const MAX_NAME = 100;

/** Throws FILE_NOT_FOUND and FILE_UNREADABLE. */
export function readBaseline(path: string): Baseline {
  const unreadable = (reason: string, cause?: unknown) =>
    new EngineError('FILE_UNREADABLE', { path, reason }, { cause });
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_BYTES) throw unreadable(`it has more than the ${MAX_BYTES} bytes that a baseline may have`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof EngineError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new EngineError('FILE_NOT_FOUND', { what: 'baseline', path }, { cause: error });
    throw unreadable(message, error);
  }
  let report: unknown;
  try {
    report = JSON.parse(text);
  } catch (error) {
    throw unreadable('it is no JSON', error);
  }
  const { model, machine, rows } = fieldsOf(report);
  const { parameters } = fieldsOf(model);
  const { gpu } = fieldsOf(machine);
  if (!isPositive(parameters)) throw unreadable('it has no number under model.parameters');
  if (!Array.isArray(rows) || rows.length === 0 || rows.length > MAX_ROWS) {
    throw unreadable(`it needs 1 to ${MAX_ROWS} rows`);
  }
  const parsed = rows.map((row: unknown, i) => {
    const result = rowOf(fieldsOf(row));
    if (result === null) throw unreadable(`row ${i} is not one of a benchmark's report`);
    return result;
  });
  return { path, gpu: isName(gpu) ? gpu : null, parameters, rows: parsed };
}

/** Throws OPTION_INVALID if the baseline is of another model, or of none of these sizes. */
export function requireComparable(baseline: Baseline, parameters: number, sizes: readonly Compared[]): void {
  const refused = (expected: string) =>
    new EngineError('OPTION_INVALID', { option: '--baseline', value: baseline.path, expected });
  if (baseline.parameters !== parameters) {
    throw refused(`measurements of ${parameters} parameters as in the model, not of ${baseline.parameters}`);
  }
  if (sizes.some((size) => baseline.rows.some((row) => isAlike(row, size)))) return;
  const wanted = sizes.map(
    (size) => `${kindOf(size)} of batch ${size.batch} after prompts of ${size.prompt_tokens} tokens`,
  );
  throw refused(`a row for ${wanted.join(', or ')}`);
}

/** The fastest row of the same sizes with as many bits a weight; null if there is none. */
export function counterpart(row: BenchRow, baseline: Baseline): BenchRow | null {
  const [best] = baseline.rows
    .filter((other) => isAlike(other, row) && bitsOf(other.dtype) === bitsOf(row.dtype))
    .sort((a, b) => b.tokens_per_second.median - a.tokens_per_second.median);
  return best ?? null;
}

/**
 * Our rows with their ratio to the baseline's, and with the bandwidth that it measured where ours has none. The range is
 * what the two ranges allow, since the two were not measured in turn.
 */
export function besideBaseline(rows: readonly BenchRow[], baseline: Baseline): BenchRow[] {
  return rows.map((row) => {
    const other = counterpart(row, baseline);
    const peak = baseline.rows.find(({ peak_gb_per_second: gb }) => gb !== undefined)?.peak_gb_per_second;
    const gb = row.gb_per_second;
    const isMeasured = row.peak_gb_per_second !== undefined || row.backend.startsWith('native-cpu');
    return {
      ...row,
      ...(!isMeasured && gb && peak && { peak_gb_per_second: peak, percent_of_peak: (100 * gb) / peak }),
      ...(other && { ratio: ratioOf(row.tokens_per_second, other.tokens_per_second) }),
    };
  });
}

/** The baseline's rows of sizes that ours have too. */
export function baselineRows(rows: readonly BenchRow[], baseline: Baseline): BenchRow[] {
  return baseline.rows.filter((other) => rows.some((row) => isAlike(other, row)));
}

function ratioOf(ours: Summary, theirs: Summary): Summary {
  return {
    median: ours.median / theirs.median,
    min: ours.min / theirs.max,
    max: ours.max / theirs.min,
    runs: Math.min(ours.runs, theirs.runs),
  };
}

function kindOf({ generated_tokens: generated }: Compared): 'prefill' | 'decode' {
  return generated > 0 ? 'decode' : 'prefill';
}

function isAlike(a: Compared, b: Compared): boolean {
  return kindOf(a) === kindOf(b) && a.batch === b.batch && a.prompt_tokens === b.prompt_tokens;
}

/** Of the smallest type, `int8+int4`: heads have more bits than layers. 16-bit floats of either kind are alike. */
function bitsOf(dtype: string): number {
  return Math.min(...dtype.split('+').map((type) => Number(/\d+/.exec(type)?.[0] ?? Number.POSITIVE_INFINITY)));
}

function rowOf(fields: Readonly<Record<string, unknown>>): BenchRow | null {
  const { name, backend, dtype, batch, prompt_tokens, generated_tokens } = fields;
  const { gb_per_second, peak_gb_per_second, percent_of_peak, bytes_per_token } = fields;
  const rate = fieldsOf(fields.tokens_per_second);
  const { median, min, max, runs } = rate;
  if (!isName(name) || !isName(backend) || !isName(dtype)) return null;
  if (!isPositive(batch) || !isPositive(prompt_tokens)) return null;
  if (generated_tokens !== 0 && !isPositive(generated_tokens)) return null;
  if (!isPositive(median) || !isPositive(min) || !isPositive(max) || !isPositive(runs)) return null;
  return {
    name,
    backend,
    dtype,
    batch,
    prompt_tokens,
    generated_tokens,
    tokens_per_second: { median, min, max, runs },
    ...(isPositive(bytes_per_token) && { bytes_per_token }),
    ...(isPositive(gb_per_second) && { gb_per_second }),
    ...(isPositive(peak_gb_per_second) && { peak_gb_per_second }),
    ...(isPositive(percent_of_peak) && { percent_of_peak }),
  };
}

/** Of anything: without fields if it is no object. */
function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return Object(value) as Readonly<Record<string, unknown>>;
}

function isPositive(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= MAX_NAME;
}
