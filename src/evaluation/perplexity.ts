import type { Engine } from '../library/engine.js';
import { type EvaluationOptions, type EvaluationRun, evaluate, type Scorer, type ScorerFactory } from './evaluation.js';
import { scoreRow } from './log-softmax.js';
import { Moments } from './moments.js';
import type { EvaluatedModel } from './text.js';

/** How well a model predicts a text. */
export interface Perplexity extends EvaluationRun {
  /** exp of the mean negative log-likelihood; Infinity if a token of the text has probability 0. */
  readonly perplexity: number;
  /** Standard error, were the tokens independent; null for fewer than two tokens, or if the perplexity is infinite. */
  readonly perplexityError: number | null;
  /** Mean negative log-likelihood of a token: nats. */
  readonly nll: number;
  readonly nllError: number | null;
  /** Of the text's UTF-8: comparable between tokenizers. */
  readonly bitsPerByte: number | null;
  /** Part of the tokens that were the likeliest. */
  readonly top1Accuracy: number;
  /** Tokens of the text that have probability 0. */
  readonly impossibleTokens: number;
}

/**
 * Perplexity of a model on a text, or on token ids, used as they are. The text is cut into windows that the model sees
 * alone, each begun as the model's texts begin; every token is scored once, those early in a window with little context.
 *
 *     const { perplexity, bitsPerByte } = await evaluatePerplexity(engine, text, { window: 1024, signal });
 *
 * Throws TEXT_TOO_SHORT, TOKENIZER_MISSING, TOKEN_ID_INVALID, OPTION_INVALID, LOGITS_INVALID (NaN, …),
 * SAVED_EVALUATION_UNUSABLE, OUT_OF_MEMORY, ABORTED.
 */
export async function evaluatePerplexity(
  engine: Engine | EvaluatedModel,
  input: string | ArrayLike<number>,
  options: EvaluationOptions = {},
): Promise<Perplexity> {
  const { scorer, run } = await evaluate([engine], input, options, perplexityScorers);
  const { nll } = scorer;
  const bits = (nll.mean * run.tokens) / Math.LN2;
  return {
    ...perplexityOf(nll),
    nll: nll.mean,
    nllError: nll.standardError,
    bitsPerByte: run.bytes === null ? null : bits / run.bytes,
    top1Accuracy: scorer.correct / run.tokens,
    impossibleTokens: nll.numInfinite,
    ...run,
  };
}

/** From negative log-likelihoods: nats. The error is that of the mean, times the slope of exp. */
export function perplexityOf(nll: Moments): Pick<Perplexity, 'perplexity' | 'perplexityError'> {
  const perplexity = Math.exp(nll.mean);
  const error = nll.standardError;
  return { perplexity, perplexityError: error === null ? null : perplexity * error };
}

const perplexityScorers: ScorerFactory<PerplexityScorer> = {
  kind: 'perplexity',
  create: () => new PerplexityScorer(new Moments(), 0),
  restore: (_, numSaved, saved) => {
    const { nll, correct } = Object(saved) as Record<string, unknown>;
    const moments = Moments.restore(nll);
    if (moments?.count !== numSaved || !Number.isSafeInteger(correct)) return null;
    return new PerplexityScorer(moments, correct as number);
  },
};

class PerplexityScorer implements Scorer {
  constructor(
    readonly nll: Moments,
    public correct: number,
  ) {}

  get value(): number {
    return Math.exp(this.nll.mean);
  }

  score([logits]: readonly Float32Array[], target: number): boolean {
    const { logprob, top1 } = scoreRow(logits!, target);
    this.nll.push(-logprob);
    this.correct += Number(top1 === target);
    return !Number.isNaN(logprob);
  }

  save(): unknown {
    return { nll: this.nll.save(), correct: this.correct };
  }
}
