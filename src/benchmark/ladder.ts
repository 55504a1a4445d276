import { evaluateKl } from '../evaluation/kl.js';
import { evaluatePerplexity } from '../evaluation/perplexity.js';
import { chooseBackend } from '../library/choose-backend.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import { type Baseline, besideBaseline, requireComparable } from './baseline.js';
import { modelCost } from './model-cost.js';
import { measureInProcess, type Program } from './ours.js';
import type { BenchModel, BenchRow, Quality } from './report.js';
import { type Rung, type RungLoad, rungsOf } from './rungs.js';
import type { SpeedKind } from './speed.js';

export interface LadderOptions {
  readonly program: Program;
  /** Path. */
  readonly model: string;
  /** Decides which steps there are. Default `auto`. */
  readonly backend?: LoadOptions['backend'];
  readonly threads: number;
  /** Of a prefill. */
  readonly promptTokens: number;
  /** Of the prompt before a decode. */
  readonly contextTokens: number;
  readonly generatedTokens: number;
  /** Measurements of each rung. */
  readonly runs: number;
  /** A text on which the quality of every rung is measured; without it only speed is. */
  readonly text?: { readonly content: string; readonly maxTokens: number } | undefined;
  /** Measurements to put ours beside. */
  readonly baseline?: Baseline | undefined;
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
 * OPPONENT_FAILED, OPTION_INVALID for a baseline of something else, and what loading and evaluating throw.
 */
export async function climbLadder(options: LadderOptions): Promise<LadderResult> {
  const { model, baseline, onProgress } = options;
  const cost = await modelCost(model, {});
  if (baseline !== undefined) requireComparable(baseline, cost.model.parameters, sizesOf(options));
  const backend = chooseBackend(options).backend.name.split(':')[0] as NonNullable<LoadOptions['backend']>;
  const qualities = new Map<string, Quality>();
  const rows: BenchRow[] = [];
  let measured: BenchModel | null = null;
  for (const rung of rungsOf(backend)) {
    if (!rung.applies(cost, options.threads)) continue;
    const key = JSON.stringify(rung.load);
    // Instruction sets and threads give the same bits, so one evaluation stands for all rungs that load alike.
    if (options.text !== undefined && !qualities.has(key)) {
      onProgress?.(`${rung.name}: quality`);
      qualities.set(key, await qualityOf(rung.load, { ...options, backend }));
    }
    const quality = qualities.get(key);
    for (const kind of ['prefill', 'decode'] as const) {
      onProgress?.(`${rung.name}: ${kind}`);
      const report = await measureRung(rung, kind, backend, options);
      measured = report.model;
      const [row] = report.rows;
      rows.push({ ...row!, name: `${rung.name}: ${kind}`, ...(quality && { quality }) });
    }
  }
  const besides = baseline === undefined ? rows : besideBaseline(rows, baseline);
  return { model: { ...measured!, bytes: cost.model.bytes }, rows: besides };
}

function sizesOf({ promptTokens, contextTokens, generatedTokens }: LadderOptions) {
  return [
    { batch: 1, prompt_tokens: promptTokens, generated_tokens: 0 },
    { batch: 1, prompt_tokens: contextTokens, generated_tokens: generatedTokens },
  ];
}

function measureRung(rung: Rung, kind: SpeedKind, backend: string, options: LadderOptions) {
  const { program, model, runs, promptTokens, contextTokens, generatedTokens, signal } = options;
  const threads = rung.threads ?? options.threads;
  const prompt = kind === 'prefill' ? promptTokens : contextTokens;
  const workload = { batch: 1, promptTokens: prompt, generatedTokens };
  const { activations, quantize } = rung.load;
  const flags = [
    ...['--backend', backend],
    ...(activations === undefined ? [] : ['--activations', activations]),
    ...(quantize === undefined ? [] : ['--quantize', quantize]),
  ];
  return measureInProcess(program, { model, threads, kind, workload, runs, signal }, flags, rung.env);
}

/** Compared with the same file, nothing quantised while loading and inputs of matrices as floats. */
async function qualityOf(load: RungLoad, options: LadderOptions): Promise<Quality> {
  const { model, backend, threads, text, signal } = options;
  const exact = { activations: 'f32', kvDtype: 'f32' } as const;
  const { content, maxTokens } = text!;
  await using reference = await Engine.load({ ...exact, model, backend, threads, signal });
  if (JSON.stringify(load) === JSON.stringify(exact)) {
    const { perplexity } = await evaluatePerplexity(reference, content, { maxTokens, signal });
    return { perplexity, kl_mean: 0, kl_p99: 0, top1_agreement: 1 };
  }
  await using engine = await Engine.load({ ...load, model, backend, threads, signal });
  const { perplexity, klMean, klP99, top1Agreement } = await evaluateKl(engine, reference, content, {
    maxTokens,
    signal,
  });
  return { perplexity, kl_mean: klMean, kl_p99: klP99, top1_agreement: top1Agreement };
}
