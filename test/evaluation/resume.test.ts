import { describe, expect, it } from 'vitest';
import type { EvaluationOptions, EvaluationProgress } from '../../src/evaluation/evaluation.js';
import { evaluateKl } from '../../src/evaluation/kl.js';
import { evaluatePerplexity } from '../../src/evaluation/perplexity.js';
import type { SavedEvaluation } from '../../src/evaluation/saved-evaluation.js';
import { seededRandom } from '../tensor/random.js';
import { FakeModel } from './fake-model.js';

const VOCAB_SIZE = 40;

/** A model with random logits, and now and then an impossible token. */
function randomModel(seed: number, name: string): FakeModel {
  const random = seededRandom(seed);
  const rows = Array.from({ length: VOCAB_SIZE }, () =>
    Array.from({ length: VOCAB_SIZE }, () => (random() < 0.002 ? -Infinity : random() * 8)),
  );
  return new FakeModel(VOCAB_SIZE, (id) => rows[id]!, 64, name);
}

const random = seededRandom(9);
const ids = Array.from({ length: 150 }, () => Math.floor(random() * VOCAB_SIZE));
const reference = randomModel(1, 'reference');
const window = 16;

const evaluations = {
  perplexity: (model: FakeModel, options: EvaluationOptions) => evaluatePerplexity(model, ids, options),
  kl: (model: FakeModel, options: EvaluationOptions) => evaluateKl(model, reference, ids, options),
} as const;

/** What was saved last before the evaluation was aborted after some windows; it has been JSON since. */
async function savedAfter(kind: keyof typeof evaluations, windows: number): Promise<SavedEvaluation> {
  const abort = new AbortController();
  let saved = '';
  const run = evaluations[kind](randomModel(2, 'model'), {
    window,
    signal: abort.signal,
    onWindow: (progress) => {
      saved = JSON.stringify(progress.save());
      if (progress.windows === windows) abort.abort();
    },
  });
  await expect(run).rejects.toMatchObject({ code: 'ABORTED' });
  return JSON.parse(saved) as SavedEvaluation;
}

describe.each(['perplexity', 'kl'] as const)('a resumed evaluation of %s', (kind) => {
  it('gives the bits of one without interruption, from any window', async () => {
    const { tokensPerSecond: _, ...whole } = await evaluations[kind](randomModel(2, 'model'), { window });
    expect(whole.windows).toBe(10);
    for (const windows of [1, 4, 9]) {
      const resume = await savedAfter(kind, windows);
      const model = randomModel(2, 'model');
      const { tokensPerSecond, ...resumed } = await evaluations[kind](model, { window, resume });
      expect(resumed).toEqual(whole);
      expect(model.inputs).toHaveLength(10 - windows);
      expect(tokensPerSecond).toBeGreaterThan(0);
    }
  });

  it('computes nothing when all is done', async () => {
    let resume: SavedEvaluation | undefined;
    const onWindow = (progress: EvaluationProgress) => {
      resume = progress.save();
    };
    const { tokensPerSecond: _, ...whole } = await evaluations[kind](randomModel(2, 'model'), { window, onWindow });
    const model = randomModel(2, 'model');
    const again = await evaluations[kind](model, { window, resume });
    expect(again).toEqual({ ...whole, tokensPerSecond: 0 });
    expect(model.inputs).toEqual([]);
  });

  it('is refused with another window, text, model or load option, by name', async () => {
    const resume = await savedAfter(kind, 2);
    const refused = async (problem: RegExp, options: EvaluationOptions, model = randomModel(2, 'model')) =>
      expect(evaluations[kind](model, { window, resume, ...options })).rejects.toMatchObject({
        code: 'SAVED_EVALUATION_UNUSABLE',
        message: expect.stringMatching(problem),
      });
    await refused(/window was 16 and is 17/, { window: 17 });
    await refused(/stride was 15 and is 3/, { stride: 3 });
    await refused(/text was \w+ and is \w+/, { maxTokens: 100 });
    await refused(/model was model and is other/, {}, randomModel(2, 'other'));
    await refused(/--activations was not given and is q8/, { identity: { '--activations': 'q8' } });
  });

  it('is refused if what was saved is damaged or of the other kind', async () => {
    const saved = await savedAfter(kind, 2);
    const other = await savedAfter(kind === 'kl' ? 'perplexity' : 'kl', 2);
    const scores = saved.scores as Record<string, unknown>;
    const damaged: unknown[] = [
      {},
      null,
      other,
      { ...saved, version: 2 },
      { ...saved, identity: null },
      { ...saved, windows: -1 },
      { ...saved, windows: 11 },
      { ...saved, windows: 1 },
      { ...saved, windows: 1.5 },
      { ...saved, scores: null },
      ...Object.keys(scores).map((name) => ({ ...saved, scores: { ...scores, [name]: null } })),
    ];
    for (const resume of damaged) {
      const run = evaluations[kind](randomModel(2, 'model'), { window, resume: resume as SavedEvaluation });
      await expect(run, JSON.stringify(resume)).rejects.toMatchObject({ code: 'SAVED_EVALUATION_UNUSABLE' });
    }
  });
});
