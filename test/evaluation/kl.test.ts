import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { evaluateKl } from '../../src/evaluation/kl.js';
import { evaluatePerplexity } from '../../src/evaluation/perplexity.js';
import { Engine } from '../../src/library/engine.js';
import { itWithData, sharedData } from '../shared-data.js';
import { FakeModel } from './fake-model.js';

const logs = (...probabilities: number[]) => probabilities.map(Math.log);
const even = logs(0.25, 0.25, 0.25, 0.25);
const halves = logs(0.5, 0.25, 0.125, 0.125);

describe('divergence', () => {
  it('is what one computes by hand', async () => {
    // The models differ after token 0 alone: KL(halves || even) = ln 2 / 4.
    const model = new FakeModel(4, () => even);
    const reference = new FakeModel(4, (id) => (id === 0 ? halves : even), 64, 'reference');
    const result = await evaluateKl(model, reference, [0, 0, 1, 2, 3, 0]); // scored after 0, 0, 1, 2, 3
    const kl = Math.LN2 / 4;
    expect(result.klMean).toBeCloseTo((2 * kl) / 5, 6);
    expect(result.klError).toBeCloseTo(Math.sqrt((2 * (0.6 * kl) ** 2 + 3 * (0.4 * kl) ** 2) / 4 / 5), 6);
    expect(result.klMedian).toBe(0);
    expect(result.klP90).toBeCloseTo(kl, 6);
    expect(result.klMax).toBeCloseTo(kl, 6);
    expect(result.top1Agreement).toBe(1); // of equal logits the first counts
    // The reference gives 1/2 to token 0 and 1/4 to token 1 there, the model 1/4 to both.
    expect(result.deltaLogprobMean).toBeCloseTo(-Math.LN2 / 5, 6);
    expect(result.deltaProbabilityMean).toBeCloseTo(-0.25 / 5, 6);
    expect(result.deltaProbabilityRms).toBeCloseTo(0.25 / Math.sqrt(5), 6);
    expect(result.perplexity).toBeCloseTo(4, 5);
    expect(result.referencePerplexity).toBeCloseTo(2 ** (9 / 5), 5);
    expect(result.perplexityRatio).toBeCloseTo(2 ** (1 / 5), 6);
    expect(result.perplexityRatioError).toBeCloseTo(result.perplexityRatio * result.deltaLogprobError!, 12);
    expect(result).toMatchObject({ tokens: 5, windows: 1, bytes: null });
  });

  it('counts where both find the same token likeliest', async () => {
    const model = new FakeModel(4, (id) => (id === 2 ? logs(0.1, 0.7, 0.1, 0.1) : halves));
    const reference = new FakeModel(4, () => halves, 64, 'reference');
    const { top1Agreement, top1AgreementError } = await evaluateKl(model, reference, [0, 1, 2, 3, 0]);
    expect(top1Agreement).toBe(0.75);
    expect(top1AgreementError).toBeCloseTo(Math.sqrt((0.75 * 0.25) / 3), 12);
  });

  it('gives both the same ids, in windows that fit both', async () => {
    const model = new FakeModel(4, () => even, 64);
    const reference = new FakeModel(4, () => halves, 6, 'reference');
    const result = await evaluateKl(model, reference, [0, 1, 2, 3, 0, 1, 2, 3]);
    expect(result.window).toBe(6);
    expect(model.inputs).toEqual([
      [0, 1, 2, 3, 0],
      [1, 2],
    ]);
    expect(reference.inputs).toEqual(model.inputs);
  });

  it('is infinite where the model rules out what the reference allows', async () => {
    const model = new FakeModel(4, (id) => (id === 1 ? [-Infinity, 0, 0, 0] : [0, 0, 0, 0]));
    const reference = new FakeModel(4, () => [0, 0, 0, 0], 64, 'reference');
    const result = await evaluateKl(model, reference, [2, 1, 0, 2]);
    expect(result).toMatchObject({ klMean: Infinity, klError: null, klMax: Infinity, klMedian: 0 });
    expect(result).toMatchObject({ impossibleTokens: 1, referenceImpossibleTokens: 0, perplexity: Infinity });
    expect(result.deltaLogprobMean).toBeCloseTo(0, 15); // of the two tokens possible in both
    expect(result.perplexityRatioError).toBeNull();
  });

  it('names the model whose logits are no distribution', async () => {
    const model = new FakeModel(4, () => even);
    const reference = new FakeModel(4, (id) => (id === 1 ? [Infinity, 0, 0, 0] : even), 64, 'broken');
    await expect(evaluateKl(model, reference, [0, 1, 2])).rejects.toMatchObject({
      code: 'LOGITS_INVALID',
      parameters: { model: 'broken', window: 0, position: 1, problem: 'the logit of token 0 is Infinity' },
    });
  });

  it('refuses models of different vocabularies', async () => {
    const wider = new FakeModel(5, () => [...even, 0], 64, 'wider');
    await expect(evaluateKl(new FakeModel(4, () => even), wider, [0, 1])).rejects.toMatchObject({
      code: 'VOCABULARY_MISMATCH',
      parameters: { reference: 'wider', problem: 'they have 4 and 5 tokens' },
    });
  });
});

const stories = 'models/stories260K-gguf';
const text = () => readFileSync(sharedData('evaltext/cs336/fixtures/tinystories_sample.txt')!, 'utf8');

describe('divergence of stories260K', () => {
  itWithData(stories, 'from itself is exactly 0', async (folder) => {
    for (const type of ['f32', 'q4_0']) {
      const load = () => Engine.load({ model: `${folder}/stories260K-${type}.gguf` });
      await using engine = await load();
      await using reference = await load();
      const result = await evaluateKl(engine, reference, text(), { maxTokens: 600 });
      expect(result).toMatchObject({ klMean: 0, klMax: 0, top1Agreement: 1, perplexityRatio: 1, deltaLogprobMean: 0 });
      const { perplexity } = await evaluatePerplexity(engine, text(), { maxTokens: 600 });
      expect(result.perplexity).toBe(perplexity);
    }
  });

  itWithData(stories, 'from its float32 weights grows as bits go', async (folder) => {
    await using reference = await Engine.load({ model: `${folder}/stories260K-f32.gguf` });
    const klOf = async (type: string) => {
      await using engine = await Engine.load({ model: `${folder}/stories260K-${type}.gguf`, activations: 'f32' });
      return await evaluateKl(engine, reference, text(), { maxTokens: 600 });
    };
    const [q4, q8, f16] = [await klOf('q4_0'), await klOf('q8_0'), await klOf('f16')];
    expect(f16.klMean).toBeGreaterThan(0);
    expect(q8.klMean).toBeGreaterThan(10 * f16.klMean);
    expect(q4.klMean).toBeGreaterThan(10 * q8.klMean);
    expect(q4.klMedian).toBeLessThan(q4.klMean);
    const ascending = [q4.klMedian, q4.klP90, q4.klP99, q4.klP999, q4.klMax];
    expect(ascending).toEqual(ascending.toSorted((a, b) => a - b));
    expect(q4.top1Agreement).toBeLessThan(q8.top1Agreement);
  });

  itWithData(stories, 'shows what 8-bit activations change', async (folder) => {
    const model = `${folder}/stories260K-q8_0.gguf`;
    await using fast = await Engine.load({ model, activations: 'q8' });
    await using exact = await Engine.load({ model, activations: 'f32' });
    const { klMean, top1Agreement } = await evaluateKl(fast, exact, text(), { maxTokens: 600 });
    expect(klMean).toBeGreaterThan(0);
    expect(klMean).toBeLessThan(1e-3);
    expect(top1Agreement).toBeGreaterThan(0.97);
  });

  itWithData(stories, 'cannot be had from a model with other tokens', async (folder) => {
    await using engine = await Engine.load({ model: `${folder}/stories260K-f32.gguf` });
    await using fable = await Engine.load();
    await expect(evaluateKl(engine, fable, 'text')).rejects.toMatchObject({
      code: 'VOCABULARY_MISMATCH',
      parameters: { problem: 'they have 512 and 4096 tokens' },
    });
  });
});
