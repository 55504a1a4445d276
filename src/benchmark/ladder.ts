import { evaluateKl } from '../evaluation/kl.js';
import { evaluatePerplexity } from '../evaluation/perplexity.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import { type ModelCost, modelCost } from './model-cost.js';
import { measureInProcess, type Program } from './ours.js';
import type { BenchModel, BenchRow, Quality } from './report.js';
import type { SpeedKind } from './speed.js';

type RungLoad = Pick<LoadOptions, 'activations' | 'quantize'>;

/** One step of the study: how the same model is run. */
export interface Rung {
  readonly name: string;
  readonly load: RungLoad;
  /** Of the processes that measure speed. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default: all that are used. */
  readonly threads?: 1;
  /** Whether the step means anything for this model on these threads. */
  readonly applies: (cost: ModelCost, threads: number) => boolean;
}

const always = () => true;

/** From the slowest to the fastest; every one keeps what the one before it brought. */
export const rungs: readonly Rung[] = [
  {
    name: 'plain C++',
    load: { activations: 'f32' },
    env: { ENGINE_CPU_ISA: 'scalar' },
    threads: 1,
    applies: always,
  },
  { name: 'SIMD', load: { activations: 'f32' }, threads: 1, applies: always },
  { name: 'threads', load: { activations: 'f32' }, applies: (_, threads) => threads > 1 },
  { name: '8-bit activations', load: { activations: 'q8' }, applies: ({ isFloat }) => !isFloat },
  { name: 'INT8', load: { quantize: 'int8' }, applies: ({ isFloat }) => isFloat },
  { name: 'INT4', load: { quantize: 'int4' }, applies: ({ isFloat }) => isFloat },
];

export interface LadderOptions {
  readonly program: Program;
  /** Path. */
  readonly model: string;
  readonly threads: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Measurements of each rung. */
  readonly runs: number;
  /** A text on which the quality of every rung is measured; without it only speed is. */
  readonly text?: { readonly content: string; readonly maxTokens: number } | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((what: string) => void) | undefined;
}

export interface LadderResult {
  readonly model: BenchModel;
  /** Two a rung, in their order: prefill and decode. */
  readonly rows: readonly BenchRow[];
}

/**
 * Repeats the classic study of optimisation on one model: speed of every step, beside what it costs in quality. Throws
 * OPPONENT_FAILED and what evaluating throws.
 */
export async function climbLadder(options: LadderOptions): Promise<LadderResult> {
  const { model, onProgress } = options;
  const cost = await modelCost(model, {});
  const qualities = new Map<string, Quality>();
  const rows: BenchRow[] = [];
  let measured: BenchModel | null = null;
  for (const rung of rungs) {
    if (!rung.applies(cost, options.threads)) continue;
    const key = JSON.stringify(rung.load);
    // Instruction sets and threads give the same bits, so one evaluation stands for all rungs that load alike.
    if (options.text !== undefined && !qualities.has(key)) {
      onProgress?.(`${rung.name}: quality`);
      qualities.set(key, await qualityOf(rung.load, options));
    }
    const quality = qualities.get(key);
    for (const kind of ['prefill', 'decode'] as const) {
      onProgress?.(`${rung.name}: ${kind}`);
      const report = await measureRung(rung, kind, options);
      measured = report.model;
      const [row] = report.rows;
      rows.push({ ...row!, name: `${rung.name}: ${kind}`, ...(quality && { quality }) });
    }
  }
  return { model: { ...measured!, bytes: cost.model.bytes }, rows };
}

function measureRung(rung: Rung, kind: SpeedKind, options: LadderOptions) {
  const { program, model, runs, promptTokens, generatedTokens, signal } = options;
  const threads = rung.threads ?? options.threads;
  const prompt = kind === 'prefill' ? promptTokens : 1;
  const workload = { batch: 1, promptTokens: prompt, generatedTokens };
  const { activations, quantize } = rung.load;
  const flags = [
    ...(activations === undefined ? [] : ['--activations', activations]),
    ...(quantize === undefined ? [] : ['--quantize', quantize]),
  ];
  return measureInProcess(program, { model, threads, kind, workload, runs, signal }, flags, rung.env);
}

/** Compared with the same file, nothing quantised while loading and inputs of matrices as floats. */
async function qualityOf(load: RungLoad, { model, threads, text, signal }: LadderOptions): Promise<Quality> {
  const exact = { activations: 'f32', kvDtype: 'f32' } as const;
  const { content, maxTokens } = text!;
  await using reference = await Engine.load({ ...exact, model, threads, signal });
  if (JSON.stringify(load) === JSON.stringify(exact)) {
    const { perplexity } = await evaluatePerplexity(reference, content, { maxTokens, signal });
    return { perplexity, kl_mean: 0, kl_p99: 0, top1_agreement: 1 };
  }
  await using engine = await Engine.load({ ...load, model, threads, signal });
  const { perplexity, klMean, klP99, top1Agreement } = await evaluateKl(engine, reference, content, {
    maxTokens,
    signal,
  });
  return { perplexity, kl_mean: klMean, kl_p99: klP99, top1_agreement: top1Agreement };
}
