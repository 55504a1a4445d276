import { exp32, log32 } from './float-math.js';
import { philox } from './reference-philox.js';
import type { SamplingRecord } from './sampling.js';

/** Steps 6 to 11 of the sampling op (reference-sampling.ts): which tokens survive, and which of them is drawn. */
const { fround } = Math;

/** Logits further below the maximum, after the division by temperature, never survive: exp(−25) = 1.4e−11. */
const CUT_OFF = 25;

/**
 * The ids that may be drawn. z is [vocabSize] with finite maximum maxZ; e = exp(z − maxZ) is a token's weight.
 *
 * 6. Those with z ≥ maxZ − 25.
 * 7. top-k (if > 0): the first k in order of likelihood.
 * 8. typical-p (if < 1), below.
 * 9. top-p (if < 1, arXiv 1904.09751): in order of likelihood, those before which the weights sum to less than
 *    topP · total. Sums and total in float64, the total in ascending id.
 * 10. min-p (if > 0, arXiv 2407.01082): e ≥ minP.
 *
 * Order of likelihood: z descending, id ascending. The first token of an order is never filtered out; should all e be
 * below minP (typical-p may have removed the likely ones), the first in order of likelihood remains.
 */
export function filterSurvivors(z: Float32Array, maxZ: number, record: SamplingRecord): number[] {
  const { topK, typicalP, topP, minP } = record;
  const byLikelihood = (a: number, b: number): number => z[b]! - z[a]! || a - b;
  const weight = (id: number): number => exp32(fround(z[id]! - maxZ));

  const lowest = fround(maxZ - CUT_OFF);
  let ids: number[] = [];
  for (let id = 0; id < z.length; id++) if (z[id]! >= lowest) ids.push(id);
  if (topK > 0 && topK < ids.length) ids = ids.sort(byLikelihood).slice(0, topK);
  if (typicalP < 1) ids = typical(ids, z, maxZ, typicalP);
  if (topP < 1) {
    const limit = topP * sumInIdOrder(ids, weight);
    ids = takeBelow(ids.sort(byLikelihood), weight, limit);
  }
  if (minP > 0) {
    const likely = ids.filter((id) => weight(id) >= minP);
    ids = likely.length > 0 ? likely : ids.sort(byLikelihood).slice(0, 1);
  }
  return ids;
}

/**
 * Locally typical sampling (arXiv 2202.00666): tokens whose surprise s = log(total) − (z − maxZ) is nearest to the
 * entropy H = Σ (e / total) · s, in order of |s − H| (then id), until their weights sum to typicalP · total. Sums in
 * float64 in ascending id; log(total) of the total rounded to float32; s, H and |s − H| are float32.
 */
function typical(ids: number[], z: Float32Array, maxZ: number, typicalP: number): number[] {
  const weight = (id: number): number => exp32(fround(z[id]! - maxZ));
  const total = sumInIdOrder(ids, weight);
  const logTotal = log32(fround(total));
  const surprise = (id: number): number => fround(logTotal - fround(z[id]! - maxZ));
  const entropy = fround(sumInIdOrder(ids, (id) => (weight(id) / total) * surprise(id)));
  const distance = new Map(ids.map((id) => [id, Math.abs(fround(surprise(id) - entropy))]));
  ids.sort((a, b) => distance.get(a)! - distance.get(b)! || a - b);
  return takeBelow(ids, weight, typicalP * total);
}

function sumInIdOrder(ids: number[], value: (id: number) => number): number {
  return ids.sort((a, b) => a - b).reduce((sum, id) => sum + value(id), 0);
}

/** The first id, and those after it as long as the weights before them sum to less than the limit. */
function takeBelow(ids: number[], weight: (id: number) => number, limit: number): number[] {
  let sum = 0;
  let count = 0;
  while (count < ids.length && (count === 0 || sum < limit)) sum += weight(ids[count++]!);
  return ids.slice(0, count);
}

/**
 * 11. The survivor with the highest z + g, ties to the lowest id. g = −log(−log(u)) is Gumbel noise, so that each id is
 * drawn with probability e / Σ e (the Gumbel-max trick, arXiv 1411.0030). u = ((w >>> 9) + ½) · 2^−23 where w is word
 * id mod 4 of Philox with counter (⌊id / 4⌋, position, choice, 0) and key (seedLow, seedHigh): the noise of a token
 * depends on nothing else, so neither does the choice depend on batches or on speculation.
 */
export function chooseByNoise(
  z: Float32Array,
  ids: readonly number[],
  record: SamplingRecord,
  position: number,
): number {
  const words = new Uint32Array(4);
  let best = -1;
  let max = -Infinity;
  for (const id of ids) {
    philox(words, id >>> 2, position, record.choice, 0, record.seedLow, record.seedHigh);
    const u = ((words[id & 3]! >>> 9) + 0.5) * 2 ** -23;
    const value = fround(z[id]! - log32(-log32(u)));
    if (best < 0 || value > max || (value === max && id < best)) {
      max = value;
      best = id;
    }
  }
  return best;
}
