import type { Engine } from '../library/engine.js';
import { type EvaluationOptions, type EvaluationRun, evaluate } from './evaluation.js';
import { klScorers } from './kl-scorer.js';
import { percentile } from './percentile.js';
import { perplexityOf } from './perplexity.js';
import { type EvaluatedModel, requireSameVocabulary } from './text.js';

/** How far a model is from a reference on a text; divergences are KL(reference || model) at every scored token, in nats. */
export interface KlDivergence extends EvaluationRun {
  readonly klMean: number;
  /** Standard error of the mean, were the tokens independent; null for fewer than two tokens, or if it is infinite. */
  readonly klError: number | null;
  readonly klMedian: number;
  readonly klP90: number;
  readonly klP99: number;
  readonly klP999: number;
  readonly klMax: number;
  /** Part of the tokens before which both find the same token likeliest. */
  readonly top1Agreement: number;
  /** Standard error; null for fewer than two tokens. */
  readonly top1AgreementError: number | null;
  /** Log-probability of the text's tokens, the model's minus the reference's: nats, over tokens possible in both. */
  readonly deltaLogprobMean: number;
  readonly deltaLogprobError: number | null;
  /** The same of probabilities: mean and root of the mean square. */
  readonly deltaProbabilityMean: number;
  readonly deltaProbabilityRms: number;
  readonly perplexity: number;
  readonly perplexityError: number | null;
  readonly referencePerplexity: number;
  readonly referencePerplexityError: number | null;
  /** The model's to the reference's. Its error is small: most of what makes tokens hard is the same for both. */
  readonly perplexityRatio: number;
  readonly perplexityRatioError: number | null;
  /** Tokens of the text that have probability 0 by the model, and by the reference. */
  readonly impossibleTokens: number;
  readonly referenceImpossibleTokens: number;
}

/**
 * Kullback-Leibler divergence of a model from a reference of the same vocabulary, on a text or on token ids: what
 * quantisation, faster kernels or a smaller cache change, in far fewer tokens than perplexity needs. Windows are those
 * of evaluatePerplexity.
 *
 *     const { klMean, klP99, top1Agreement } = await evaluateKl(engine, reference, text, { signal });
 *
 * Throws VOCABULARY_MISMATCH and what evaluatePerplexity throws.
 */
export async function evaluateKl(
  engine: Engine | EvaluatedModel,
  reference: Engine | EvaluatedModel,
  input: string | ArrayLike<number>,
  options: EvaluationOptions = {},
): Promise<KlDivergence> {
  requireSameVocabulary(engine, reference);
  const { scorer, run } = await evaluate([engine, reference], input, options, klScorers);
  const { kl, nll, referenceNll, deltaLogprob, deltaProbability, squaredDelta } = scorer.sums;
  const ascending = scorer.divergences.slice().sort();
  const agreement = scorer.agreed / run.tokens;
  const own = perplexityOf(nll);
  const other = perplexityOf(referenceNll);
  const ratio = own.perplexity / other.perplexity;
  const ratioError =
    nll.standardError === null || referenceNll.standardError === null ? null : deltaLogprob.standardError;
  return {
    klMean: kl.mean,
    klError: kl.standardError,
    klMedian: percentile(ascending, 50),
    klP90: percentile(ascending, 90),
    klP99: percentile(ascending, 99),
    klP999: percentile(ascending, 99.9),
    klMax: percentile(ascending, 100),
    top1Agreement: agreement,
    top1AgreementError: run.tokens < 2 ? null : Math.sqrt((agreement * (1 - agreement)) / (run.tokens - 1)),
    deltaLogprobMean: deltaLogprob.mean,
    deltaLogprobError: deltaLogprob.standardError,
    deltaProbabilityMean: deltaProbability.mean,
    deltaProbabilityRms: Math.sqrt(squaredDelta.mean),
    ...own,
    referencePerplexity: other.perplexity,
    referencePerplexityError: other.perplexityError,
    perplexityRatio: ratio,
    perplexityRatioError: ratioError === null ? null : ratio * ratioError,
    impossibleTokens: nll.numInfinite,
    referenceImpossibleTokens: referenceNll.numInfinite,
    ...run,
  };
}
