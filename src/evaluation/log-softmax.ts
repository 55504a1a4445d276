/** Steps of the exponential's table per unit; a power of two, so that what is left of an argument is exact. */
const STEPS = 64;
/** exp(-45) is 3e-20: what lies below it cannot change a float64 sum that holds exp(0). */
const CUTOFF = -45;

/** exp(-n / STEPS) */
const table = Float64Array.from({ length: -CUTOFF * STEPS + 1 }, (_, n) => Math.exp(-n / STEPS));

/**
 * exp(x) for x ≤ 0 within 1e-15 of its value, and 0 below CUTOFF: a table entry times a polynomial of degree 5 in
 * |r| ≤ 1/128. NaN stays NaN. A third of the time of Math.exp, which is most of what scoring costs.
 */
function expNegative(x: number): number {
  if (x < CUTOFF) return 0;
  const n = (0.5 - x * STEPS) | 0;
  const r = x + n / STEPS;
  const square = r * r;
  const polynomial = 1 + r + square * (1 / 2 + r * (1 / 6) + square * (1 / 24 + r * (1 / 120)));
  return table[n]! * polynomial;
}

/** What one row of logits says about the token that came next. */
export interface RowScore {
  /** Natural logarithm of the token's probability; -Infinity is possible. NaN if the row is no distribution. */
  readonly logprob: number;
  /** The likeliest token; of several, the first. */
  readonly top1: number;
}

/** Log-softmax at one token, in float64: one pass for the maximum, one for the sum. `logits` is [vocabSize]. */
export function scoreRow(logits: Float32Array, target: number): RowScore {
  const top1 = argmax(logits);
  const max = logits[top1]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += expNegative(logits[i]! - max);
  return { logprob: logits[target]! - max - Math.log(sum), top1 };
}

/** How one row of logits differs from that of a reference. */
export interface RowComparison {
  readonly model: RowScore;
  readonly reference: RowScore;
  /**
   * KL(reference || model) in nats: Infinity if the model rules out what the reference allows; exactly 0 for equal rows;
   * NaN if one of them is no distribution.
   */
  readonly kl: number;
}

/** Both log-softmaxes and the divergence in two passes. Both rows are [vocabSize]. */
export function compareRows(logits: Float32Array, reference: Float32Array, target: number): RowComparison {
  const top1 = argmax(logits);
  const referenceTop1 = argmax(reference);
  const max = logits[top1]!;
  const referenceMax = reference[referenceTop1]!;
  let sum = 0;
  let referenceSum = 0;
  let weighted = 0; // sum of exp(reference) · (reference - model), both shifted by their maxima
  for (let i = 0; i < logits.length; i++) {
    const shifted = logits[i]! - max;
    const referenceShifted = reference[i]! - referenceMax;
    const weight = expNegative(referenceShifted);
    sum += expNegative(shifted);
    referenceSum += weight;
    if (weight > 0) weighted += weight * (referenceShifted - shifted);
  }
  const logSum = Math.log(sum);
  const referenceLogSum = Math.log(referenceSum);
  const kl = weighted / referenceSum - (referenceLogSum - logSum);
  return {
    model: { logprob: logits[target]! - max - logSum, top1 },
    reference: { logprob: reference[target]! - referenceMax - referenceLogSum, top1: referenceTop1 },
    kl: Math.max(kl, 0), // no divergence is negative, but the last bit of this difference may be
  };
}

/** Why a row of logits is no distribution, or null if it is one. */
export function problemOf(logits: Float32Array): string | null {
  let finite = false;
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id]!;
    if (Number.isNaN(value) || value === Number.POSITIVE_INFINITY) return `the logit of token ${id} is ${value}`;
    finite ||= value !== Number.NEGATIVE_INFINITY;
  }
  return finite ? null : 'every logit is -Infinity';
}

function argmax(values: Float32Array): number {
  let best = 0;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value > max) {
      max = value;
      best = i;
    }
  }
  return best;
}
