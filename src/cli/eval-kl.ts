import { Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { evaluateKl, type KlDivergence } from '../evaluation/kl.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import { type EvaluationFlags, evaluationFlags, readInput } from './eval-input.js';
import { modelIdentity } from './eval-resume.js';
import { percent, runEvaluation, withError } from './eval-run.js';
import { choice, loadFlags } from './flags.js';
import { formatTable, note } from './output.js';

interface KlFlags extends LoadOptions, EvaluationFlags {
  readonly reference?: string;
  readonly referenceActivations?: LoadOptions['activations'];
}

interface Report extends KlDivergence {
  readonly model: string;
  readonly backend: string;
  readonly reference: string;
  readonly referenceBackend: string;
  readonly referenceActivations: string;
}

export function klCommand(): Command {
  const command = new Command('kl').description(
    'divergence of a model from a reference model of the same vocabulary: what quantisation or faster kernels change',
  );
  for (const flag of loadFlags()) command.addOption(flag);
  command
    .addOption(new Option('--reference <path>', 'the model to compare with; may be the same file, loaded differently'))
    .addOption(
      choice('--reference-activations <type>', "inputs of the reference's quantised matrices; default f32", [
        'auto',
        'f32',
        'q8',
      ]),
    );
  for (const flag of evaluationFlags()) command.addOption(flag);
  return command.action(kl);
}

async function kl(flags: KlFlags): Promise<void> {
  const { reference: referencePath, referenceActivations = 'f32', threads, contextSize } = flags;
  if (referencePath === undefined) {
    throw new EngineError('OPTION_INVALID', { option: '--reference', value: undefined, expected: 'a model' });
  }
  const input = await readInput(flags);
  // The other load flags are the tested model's; the reference is as exact as the engine can be.
  const referenceOptions: LoadOptions = {
    model: referencePath,
    activations: referenceActivations,
    kvDtype: 'f32',
    threads,
    contextSize,
  };
  await runEvaluation<Report>(
    flags,
    async (options) => {
      const { signal } = options;
      await using engine = await Engine.load({ ...flags, signal });
      await using reference = await Engine.load({ ...referenceOptions, signal });
      if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);
      const identity = {
        ...(await modelIdentity(engine, flags)),
        ...(await modelIdentity(reference, referenceOptions, 'reference ')),
      };
      const result = await evaluateKl(engine, reference, input, { ...options, identity });
      const { backend: referenceBackend, model } = reference;
      return {
        model: engine.model.name,
        backend: engine.backend,
        reference: model.name,
        referenceBackend,
        referenceActivations,
        ...result,
      };
    },
    { measure: 'KL', json, text },
  );
}

/** The object of --json; its names are a promise (contracts.md). Infinity is null in JSON. */
function json(report: Report) {
  return {
    model: report.model,
    backend: report.backend,
    reference: report.reference,
    reference_backend: report.referenceBackend,
    reference_activations: report.referenceActivations,
    kl_mean: report.klMean,
    kl_error: report.klError,
    kl_median: report.klMedian,
    kl_p90: report.klP90,
    kl_p99: report.klP99,
    kl_p999: report.klP999,
    kl_max: report.klMax,
    top1_agreement: report.top1Agreement,
    top1_agreement_error: report.top1AgreementError,
    delta_logprob_mean: report.deltaLogprobMean,
    delta_logprob_error: report.deltaLogprobError,
    delta_probability_mean: report.deltaProbabilityMean,
    delta_probability_rms: report.deltaProbabilityRms,
    perplexity: report.perplexity,
    perplexity_error: report.perplexityError,
    reference_perplexity: report.referencePerplexity,
    reference_perplexity_error: report.referencePerplexityError,
    perplexity_ratio: report.perplexityRatio,
    perplexity_ratio_error: report.perplexityRatioError,
    impossible_tokens: report.impossibleTokens,
    reference_impossible_tokens: report.referenceImpossibleTokens,
    tokens: report.tokens,
    bytes: report.bytes,
    windows: report.windows,
    window: report.window,
    stride: report.stride,
    tokens_per_second: report.tokensPerSecond,
  };
}

function text(report: Report): string {
  const short = (value: number) => value.toPrecision(4);
  return formatTable([
    ['model', `${report.model} on ${report.backend}`],
    ['reference', `${report.reference} on ${report.referenceBackend}, activations ${report.referenceActivations}`],
    ['KL mean', `${withError(report.klMean, report.klError)} nats per token`],
    ['KL median', short(report.klMedian)],
    ['KL 90 %', short(report.klP90)],
    ['KL 99 %', short(report.klP99)],
    ['KL 99.9 %', short(report.klP999)],
    ['KL largest', short(report.klMax)],
    ['same top-1', percentWithError(report.top1Agreement, report.top1AgreementError)],
    ['Δ log-prob.', `${withError(report.deltaLogprobMean, report.deltaLogprobError, 4)} nats per token`],
    ['Δ probability', `${percent(report.deltaProbabilityMean)} mean, ${percent(report.deltaProbabilityRms)} RMS`],
    ['perplexity', withError(report.perplexity, report.perplexityError)],
    ['  reference', withError(report.referencePerplexity, report.referencePerplexityError)],
    ['  ratio', withError(report.perplexityRatio, report.perplexityRatioError)],
    ['scored', `${report.tokens} tokens in ${report.windows} windows of ${report.window}, stride ${report.stride}`],
    ['speed', `${report.tokensPerSecond.toFixed(1)} tokens/s`],
  ]);
}

function percentWithError(part: number, error: number | null): string {
  return error === null ? percent(part) : `${percent(part)} ± ${percent(error)}`;
}
