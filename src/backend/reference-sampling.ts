import type { Csr, SamplingInputs, StepResult } from './backend.js';
import { exp32, log32 } from './float-math.js';
import { chooseByNoise, filterSurvivors } from './reference-filters.js';
import { LOGPROBS, readRecord, SAMPLE, SAMPLING_WORDS, type SamplingRecord } from './sampling.js';

/**
 * The definition of the sampling op. All arithmetic is float32, each operation rounded, unless float64 is said; exp and
 * log are exp32 and log32; ids are token ids. NaN logits count as −Infinity. Other backends give the same tokens for
 * the same logits, bit for bit.
 */
const { fround } = Math;

/** What one row is sampled with, besides its logits. */
export interface SamplingRow {
  readonly record: SamplingRecord;
  /** Absolute position of the token to be sampled. */
  readonly position: number;
  readonly history: Int32Array;
  readonly biasIds: Int32Array;
  readonly biasValues: Float32Array;
  /** Bits of the allowed tokens, or null for all. */
  readonly mask: Int32Array | null;
}

/**
 * Samples every row. `positions` is per token row of the step; `logitsOf` gives the logits [vocabSize] of a record, by
 * its index and its row field.
 */
export function sampleRows(
  inputs: SamplingInputs,
  positions: Int32Array,
  vocabSize: number,
  logitsOf: (index: number, row: number) => Float32Array,
): StepResult {
  const numRows = inputs.sampling.length / SAMPLING_WORDS;
  const records = Array.from({ length: numRows }, (_, index) => readRecord(inputs.sampling, index));
  const numTop = Math.max(0, ...records.map((record) => (record.flags & LOGPROBS ? record.numTop : 0)));
  const result = {
    tokens: new Int32Array(numRows).fill(-1),
    logprobs: new Float32Array(numRows).fill(NaN),
    topIds: new Int32Array(numRows * numTop).fill(-1),
    topLogprobs: new Float32Array(numRows * numTop).fill(NaN),
  };
  const maskWords = Math.ceil(vocabSize / 32);
  records.forEach((record, index) => {
    const logits = logitsOf(index, record.row);
    if (record.flags & SAMPLE) {
      result.tokens[index] = sampleRow(logits, {
        record,
        position: positions[record.row]! + 1,
        history: csrIds(inputs.history, index),
        biasIds: csrIds(inputs.bias, index),
        biasValues: csrValues(inputs.bias, index),
        mask: inputs.mask?.subarray(index * maskWords, (index + 1) * maskWords) ?? null,
      });
    }
    if (record.flags & LOGPROBS) {
      const logprob = logProbabilities(logits);
      const token = result.tokens[index]!;
      if (token >= 0) result.logprobs[index] = logprob(token);
      mostLikely(logits, record.numTop).forEach((id, rank) => {
        result.topIds[index * numTop + rank] = id;
        result.topLogprobs[index * numTop + rank] = logprob(id);
      });
    }
  });
  return result;
}

function csrIds(csr: Csr | undefined, row: number): Int32Array {
  return csr ? csr.ids.subarray(csr.offsets[row], csr.offsets[row + 1]) : new Int32Array(0);
}

function csrValues(csr: Csr | undefined, row: number): Float32Array {
  return csr?.values ? csr.values.subarray(csr.offsets[row], csr.offsets[row + 1]) : new Float32Array(0);
}

function orBanned(logit: number): number {
  return Number.isNaN(logit) ? -Infinity : logit;
}

/**
 * Log-probabilities under the unmodified logits: (l − m) − log(S), m = max l, S = Σ exp(l − m). S is summed in float64
 * in 16 lanes, lane = id mod 16, ascending, then lanes 8 + 8, 4 + 4, 2 + 2, 1 + 1. NaN if m is infinite.
 */
export function logProbabilities(logits: Float32Array): (id: number) => number {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  const lanes = new Float64Array(16);
  for (let id = 0; id < logits.length; id++) lanes[id & 15]! += exp32(fround(orBanned(logits[id]!) - max));
  for (let width = 8; width > 0; width >>= 1) for (let i = 0; i < width; i++) lanes[i]! += lanes[i + width]!;
  if (!Number.isFinite(max)) return () => NaN;
  const logSum = log32(fround(lanes[0]!));
  return (id) => fround(fround(orBanned(logits[id]!) - max) - logSum);
}

/** The `count` ids with the highest logits, in order (logit descending, id ascending). */
function mostLikely(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < logits.length && count > 0; id++) {
    const logit = orBanned(logits[id]!);
    if (best.length === count && logit <= orBanned(logits[best[count - 1]!]!)) continue;
    let rank = best.length;
    while (rank > 0 && orBanned(logits[best[rank - 1]!]!) < logit) rank--;
    best.splice(rank, 0, id);
    best.length = Math.min(best.length, count);
  }
  return best;
}

/**
 * Steps 1 to 5; the rest is in reference-filters.ts.
 *
 * 1. l += bias, entries in order (−Infinity bans).
 * 2. Penalties, below.
 * 3. Tokens the mask does not allow get −Infinity, and so do those whose l is NaN.
 * 4. Temperature 0: the highest l. If every l is −Infinity, the token is −1.
 * 5. z = l / temperature. If max z is not finite (l or the quotient overflowed), the token is that of temperature 0.
 *
 * Ties go to the lowest id everywhere.
 */
export function sampleRow(logits: Float32Array, row: SamplingRow): number {
  const l = Float32Array.from(logits);
  for (let i = 0; i < row.biasIds.length; i++) l[row.biasIds[i]!]! += row.biasValues[i]!;
  penalise(l, row.history, row.record);
  for (let id = 0; id < l.length; id++) {
    const allowed = row.mask === null || (row.mask[id >> 5]! >>> (id & 31)) & 1;
    if (!allowed || Number.isNaN(l[id]!)) l[id] = -Infinity;
  }
  const greedy = highest(l);
  const { temperature } = row.record;
  if (greedy < 0 || temperature === 0) return greedy;
  const z = l.map((value) => value / temperature);
  const maxZ = z[greedy]!;
  if (!Number.isFinite(maxZ)) return greedy;
  return chooseByNoise(z, filterSurvivors(z, maxZ, row.record), row.record, row.position);
}

/**
 * Once per distinct token of the history, l becomes l / r if l > 0, else l · r (r = repetitionPenalty, arXiv 1909.05858).
 * Then, once per distinct token of its generated part, which holds it c times: l −= (frequencyPenalty · c) + presencePenalty.
 */
function penalise(l: Float32Array, history: Int32Array, record: SamplingRecord): void {
  const { repetitionPenalty, frequencyPenalty, presencePenalty, promptLength } = record;
  for (const id of new Set(history)) l[id] = l[id]! > 0 ? l[id]! / repetitionPenalty : l[id]! * repetitionPenalty;
  const counts = new Map<number, number>();
  for (const id of history.subarray(promptLength)) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) l[id]! -= fround(fround(frequencyPenalty * count) + presencePenalty);
}

/** The lowest id of the highest value, −1 if every value is −Infinity. */
function highest(l: Float32Array): number {
  let best = -1;
  let max = -Infinity;
  for (let id = 0; id < l.length; id++) {
    if (l[id]! > max) {
      max = l[id]!;
      best = id;
    }
  }
  return best;
}
