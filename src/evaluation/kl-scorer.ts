import type { Scorer, ScorerFactory } from './evaluation.js';
import { compareRows } from './log-softmax.js';
import { Moments } from './moments.js';

/** What is added up, by the name under which it is saved. */
const sumNames = ['kl', 'nll', 'referenceNll', 'deltaLogprob', 'deltaProbability', 'squaredDelta'] as const;
type Sums = Record<(typeof sumNames)[number], Moments>;

export const klScorers: ScorerFactory<KlScorer> = {
  kind: 'kl',
  create: (numTokens) =>
    new KlScorer(
      Object.fromEntries(sumNames.map((name) => [name, new Moments()])) as Sums,
      new Float32Array(numTokens),
      0,
      0,
    ),
  restore: (numTokens, numSaved, saved) => {
    const fields = Object(saved) as Record<string, unknown>;
    const restored = sumNames.map((name) => [name, Moments.restore(fields[name])] as const);
    const divergences = fromBase64(fields.divergences, numSaved);
    const { agreed } = fields;
    if (restored.some(([, moments]) => moments === null) || divergences === null) return null;
    if (restored[0]![1]!.count !== numSaved || !Number.isSafeInteger(agreed)) return null;
    const all = new Float32Array(numTokens);
    all.set(divergences);
    return new KlScorer(Object.fromEntries(restored) as Sums, all, numSaved, agreed as number);
  },
};

export class KlScorer implements Scorer {
  constructor(
    readonly sums: Sums,
    /** Of every token, of which `numScored` are there; percentiles need them all, and not more digits. */
    readonly divergences: Float32Array,
    public numScored: number,
    /** Tokens before which both models find the same one likeliest. */
    public agreed: number,
  ) {}

  get value(): number {
    return this.sums.kl.mean;
  }

  score([logits, referenceLogits]: readonly Float32Array[], target: number): boolean {
    const { model, reference, kl } = compareRows(logits!, referenceLogits!, target);
    if (Number.isNaN(kl)) return false;
    const { sums } = this;
    sums.kl.push(kl);
    this.divergences[this.numScored++] = kl;
    sums.nll.push(-model.logprob);
    sums.referenceNll.push(-reference.logprob);
    if (Number.isFinite(model.logprob) && Number.isFinite(reference.logprob)) {
      sums.deltaLogprob.push(model.logprob - reference.logprob);
    }
    const delta = Math.exp(model.logprob) - Math.exp(reference.logprob);
    sums.deltaProbability.push(delta);
    sums.squaredDelta.push(delta * delta);
    this.agreed += Number(model.top1 === reference.top1);
    return true;
  }

  save(): unknown {
    return {
      ...Object.fromEntries(sumNames.map((name) => [name, this.sums[name].save()])),
      agreed: this.agreed,
      divergences: toBase64(this.divergences.subarray(0, this.numScored)),
    };
  }
}

function toBase64(values: Float32Array): string {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');
}

/** Null unless it holds this many. */
function fromBase64(text: unknown, length: number): Float32Array | null {
  if (typeof text !== 'string') return null;
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === length * 4 ? new Float32Array(Uint8Array.from(bytes).buffer) : null;
}
