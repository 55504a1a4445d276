import { nativeInfo } from '../backend/native.js';
import { EngineError } from '../base/errors.js';
import { chooseBackend } from '../library/choose-backend.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import type { DType } from '../tensor/dtype.js';
import { type Baseline, besideBaseline, requireComparable } from './baseline.js';
import { decodeBytes, decodeOps, type ModelCost, modelCost, prefillOps } from './model-cost.js';
import { besideBandwidth, computeKindOf, gpuBandwidth, Peaks } from './peaks.js';
import { checkRuns, repeat } from './repetition.js';
import type { BenchModel, BenchRow } from './report.js';
import { type Summary, summarize } from './statistics.js';
import { contextNeeded, greedyTokens, measureDecode, measurePrefill, promptOf, type Workload } from './throughput.js';

export type SpeedKind = 'prefill' | 'decode';

export interface SpeedOptions {
  readonly kind: SpeedKind;
  /** Path. */
  readonly model: string;
  readonly load: Omit<LoadOptions, 'model' | 'contextSize' | 'batchSize' | 'signal'>;
  /** Default 512 for prefill; 1 for decode, so that a context is as long as what was generated. */
  readonly promptTokens?: number | undefined;
  /** Of a decode. Default 128. */
  readonly generatedTokens?: number | undefined;
  /** Sequences at once, one row of the report for each number. Default one row of 1. */
  readonly batches?: readonly number[] | undefined;
  /** Measurements of each row. Default 5. */
  readonly runs?: number | undefined;
  /** Compare tokens of different batches and thread counts before anything is timed. Default true. */
  readonly check?: boolean | undefined;
  /** Measurements to put ours beside. */
  readonly baseline?: Baseline | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told what is being done. */
  readonly onProgress?: ((what: string) => void) | undefined;
}

export interface SpeedResult {
  readonly model: BenchModel;
  readonly rows: readonly BenchRow[];
  /** Why the native backend was not used; null if it was. */
  readonly fallbackReason: string | null;
}

const defaults = {
  prefill: { promptTokens: 512 },
  decode: { promptTokens: 1 },
  generatedTokens: 128,
  runs: 5,
} as const;
/** Sequences at once that LoadOptions allows. */
const MAX_BATCH = 256;
/** Tokens compared before anything is timed, and those before them. */
const CHECK = { promptTokens: 16, generatedTokens: 8 };
/** Rows of a step up to which native-cuda's do not depend on the others; on a CPU they never do. */
const CUDA_ROWS = 32;

/**
 * Measures tokens per second of prefill or decode. Throws OPTION_INVALID, DEPENDENCY_MISSING, TOKENS_DIFFER (then
 * nothing was timed), and what loading and generating throw.
 */
export async function benchmarkSpeed(options: SpeedOptions): Promise<SpeedResult> {
  const { kind, model, load, runs = defaults.runs, check = true, baseline, signal, onProgress } = options;
  checkRuns('--runs', runs);
  const cost = await modelCost(model, load);
  const workloads = resolveWorkloads(options, cost.contextLength);
  if (baseline !== undefined) {
    const sizes = workloads.map(({ batch, promptTokens, generatedTokens }) => {
      return { batch, prompt_tokens: promptTokens, generated_tokens: generatedTokens };
    });
    requireComparable(baseline, cost.model.parameters, sizes);
  }
  if (check) {
    onProgress?.('comparing tokens');
    await requireEqualTokens(options, cost.contextLength, Math.max(...workloads.map(({ batch }) => batch)));
  }
  const rows: BenchRow[] = [];
  const peaks = new Peaks(signal);
  const bandwidth = gpuBandwidth(chooseBackend(load).backend.name); // before a model takes the memory
  const compute = computeKindOf(cost.dtype.split('+')[0] as DType, load.activations === 'f32');
  let loaded: Pick<SpeedResult, 'model' | 'fallbackReason'> | null = null;
  for (const workload of workloads) {
    await using engine = await Engine.load({ ...load, model, signal, ...sizes(workload, cost.contextLength) });
    loaded = { model: { name: engine.model.name, ...cost.model }, fallbackReason: engine.fallbackReason };
    const measure = kind === 'prefill' ? measurePrefill : measureDecode;
    const name = workload.batch === 1 ? kind : `${kind} × ${workload.batch}`;
    // Peaks are the processor's.
    const native = engine.backend.startsWith('native-cpu');
    const threads = native ? (load.threads ?? nativeInfo().threads.threads) : 1;
    const samplePeaks = () => (native ? peaks.sample(threads, compute) : undefined);
    await samplePeaks();
    let run = 0;
    const rates = await repeat(name, runs, () => {
      if (signal?.aborted) throw new EngineError('ABORTED', {});
      onProgress?.(`${name}, run ${++run}`);
      return measure(engine, workload);
    });
    await samplePeaks();
    const row = makeRow(kind, engine, cost, workload, rates, threads);
    rows.push({
      ...row,
      ...besidePeaks(row, peaks.gbPerSecond(threads), peaks.gopPerSecond(threads, compute)),
      ...besideBandwidth(row, bandwidth),
    });
  }
  return { ...loaded!, rows: baseline === undefined ? rows : besideBaseline(rows, baseline) };
}

function makeRow(
  kind: SpeedKind,
  engine: Engine,
  cost: ModelCost,
  workload: Workload,
  rates: readonly number[],
  threads: number,
): BenchRow {
  const rate = summarize(rates);
  const bytes = kind === 'decode' ? decodeBytes(cost, workload) : null;
  const ops = kind === 'decode' ? decodeOps(cost, workload) : prefillOps(cost, workload);
  return {
    name: kind,
    backend: engine.backend,
    dtype: cost.dtype,
    threads,
    batch: workload.batch,
    prompt_tokens: workload.promptTokens,
    generated_tokens: kind === 'decode' ? workload.generatedTokens : 0,
    tokens_per_second: rate,
    ...(bytes !== null && { bytes_per_token: Math.round(bytes), gb_per_second: (bytes * rate.median) / 1e9 }),
    gop_per_second: (ops * rate.median) / 1e9,
  };
}

/** Per cent of peaks that were measured before and after. */
function besidePeaks(row: BenchRow, read: Summary | null, multiply: Summary | null): Partial<BenchRow> {
  const { gb_per_second: gb, gop_per_second: gop } = row;
  return {
    ...(gb !== undefined && read && { peak_gb_per_second: read.median, percent_of_peak: (100 * gb) / read.median }),
    ...(gop !== undefined &&
      multiply && { peak_gop_per_second: multiply.median, percent_of_peak_compute: (100 * gop) / multiply.median }),
  };
}

/** Throws OPTION_INVALID. Sizes that were not asked for shrink to what the model's context allows. */
function resolveWorkloads(options: SpeedOptions, contextLength: number): Workload[] {
  const { kind, batches = [1] } = options;
  const whole = (option: string, value: number, max: number) => {
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new EngineError('OPTION_INVALID', { option, value, expected: `a whole number from 1 to ${max}` });
  };
  return batches.map((batch) => {
    whole('--batch', batch, MAX_BATCH);
    const usual = Math.min(defaults[kind].promptTokens, contextLength - 1);
    const promptTokens = whole('--prompt-tokens', options.promptTokens ?? usual, contextLength - 1);
    if (kind === 'prefill') return { batch, promptTokens, generatedTokens: 0 };
    const room = contextLength - contextNeeded({ batch, promptTokens, generatedTokens: 1 }) + 1;
    const generatedTokens = options.generatedTokens ?? Math.max(1, Math.min(defaults.generatedTokens, room));
    return { batch, promptTokens, generatedTokens: whole('--generated-tokens', generatedTokens, room) };
  });
}

function sizes(workload: Workload, contextLength: number): Pick<LoadOptions, 'contextSize' | 'batchSize'> {
  return { contextSize: Math.min(contextLength, Math.max(2, contextNeeded(workload))), batchSize: workload.batch };
}

/** Greedy tokens must be the same alone on one thread and on all, and in a batch as large as any that is timed. */
async function requireEqualTokens(
  { model, load, signal }: SpeedOptions,
  contextLength: number,
  batch: number,
): Promise<void> {
  const workload = { batch, ...CHECK };
  const answersOf = async (threads: number | undefined, numWanted: number) => {
    await using engine = await Engine.load({ ...load, threads, model, signal, ...sizes(workload, contextLength) });
    const prompt = promptOf(CHECK.promptTokens, engine.model.vocabSize);
    const most = engine.backend.startsWith('native-cuda') ? CUDA_ROWS / CHECK.promptTokens : numWanted;
    const numRequests = Math.min(most, numWanted);
    const answers = Array.from({ length: numRequests }, () => greedyTokens(engine, prompt, CHECK.generatedTokens));
    return (await Promise.all(answers)).map(String);
  };
  const [alone] = await answersOf(1, 1);
  const others = await answersOf(load.threads, batch);
  const different = others.find((answer) => answer !== alone);
  if (different === undefined) return;
  throw new EngineError('TOKENS_DIFFER', {
    what: `a batch of ${batch} and one thread alone`,
    first: different,
    second: alone!,
  });
}
