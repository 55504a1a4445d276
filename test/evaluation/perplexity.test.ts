import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { evaluatePerplexity } from '../../src/evaluation/perplexity.js';
import { Engine } from '../../src/library/engine.js';
import { itWithData, sharedData } from '../shared-data.js';
import { FakeModel } from './fake-model.js';

const halves = [0.5, 0.25, 0.125, 0.125].map(Math.log);

describe('perplexity', () => {
  it('is what one computes by hand', async () => {
    const model = new FakeModel(4, () => halves);
    const result = await evaluatePerplexity(model, [3, 0, 1, 2]);
    expect(result.nll).toBeCloseTo(2 * Math.LN2, 6); // of 1, 2 and 3 bits
    expect(result.perplexity).toBeCloseTo(4, 5);
    expect(result.nllError).toBeCloseTo(Math.LN2 / Math.sqrt(3), 6);
    expect(result.perplexityError).toBeCloseTo((4 * Math.LN2) / Math.sqrt(3), 5);
    expect(result.top1Accuracy).toBeCloseTo(1 / 3, 15);
    expect(result).toMatchObject({ tokens: 3, windows: 1, window: 64, stride: 63, bytes: null, bitsPerByte: null });
  });

  it('scores each token by the logits after the one before it, in every window', async () => {
    // After token t, token t + 1 (mod 4) is almost certain.
    const model = new FakeModel(4, (id) => Array.from({ length: 4 }, (_, next) => (next === (id + 1) % 4 ? 30 : 0)));
    const ids = Array.from({ length: 23 }, (_, i) => i % 4);
    for (const options of [{}, { window: 5 }, { window: 6, stride: 2 }, { window: 2, stride: 1 }]) {
      const result = await evaluatePerplexity(model, ids, options);
      expect(result.tokens).toBe(22);
      expect(result.perplexity).toBeCloseTo(1, 10);
      expect(result.top1Accuracy).toBe(1);
    }
    const [shortest] = model.inputs.slice(-1);
    expect(shortest).toHaveLength(1); // of a window of two tokens the last is only predicted
  });

  it('is infinite if a token of the text has probability 0, and says how many have', async () => {
    const model = new FakeModel(4, () => [-Infinity, 0, 0, 0]);
    const result = await evaluatePerplexity(model, [1, 0, 2, 0]);
    expect(result).toMatchObject({ perplexity: Infinity, perplexityError: null, nll: Infinity, impossibleTokens: 2 });
    expect((await evaluatePerplexity(model, [1, 2, 3])).perplexity).toBeCloseTo(3, 10);
  });

  it('names window and position of logits that are no distribution', async () => {
    const model = new FakeModel(4, (id) => (id === 3 ? [0, Number.NaN, 0, 0] : halves));
    const ids = [0, 1, 2, 0, 1, 2, 3, 0];
    await expect(evaluatePerplexity(model, ids, { window: 4 })).rejects.toMatchObject({
      code: 'LOGITS_INVALID',
      parameters: { model: 'fake', window: 2, position: 0, problem: 'the logit of token 1 is NaN' },
    });
  });

  it('uses no more than maxTokens', async () => {
    const model = new FakeModel(4, () => halves);
    expect((await evaluatePerplexity(model, [3, 0, 1, 2], { maxTokens: 3 })).tokens).toBe(2);
    expect((await evaluatePerplexity(model, [3, 0, 1, 2], { maxTokens: 99 })).tokens).toBe(3);
    for (const maxTokens of [0, 1.5, 2 ** 23, Number.NaN]) {
      await expect(evaluatePerplexity(model, [3, 0], { maxTokens })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    }
  });

  it('refuses what cannot be scored', async () => {
    const model = new FakeModel(4, () => halves);
    const refused = (input: string | number[]) => expect(evaluatePerplexity(model, input)).rejects;
    await refused([]).toMatchObject({ code: 'TEXT_TOO_SHORT', parameters: { tokens: 0, needed: 2 } });
    await refused([1]).toMatchObject({ code: 'TEXT_TOO_SHORT' });
    await refused('text').toMatchObject({ code: 'TOKENIZER_MISSING' });
    await refused([0, 4]).toMatchObject({ code: 'TOKEN_ID_INVALID', parameters: { id: 4, index: 1 } });
    await refused([0, 1, -1]).toMatchObject({ code: 'TOKEN_ID_INVALID', parameters: { id: -1, index: 2 } });
  });

  it('ends when its signal is aborted, within a window too', async () => {
    const wide = Float32Array.from({ length: 60_000 }, (_, i) => i % 3);
    const abort = new AbortController();
    const model = new FakeModel(wide.length, () => wide, 300);
    const ids = Array.from({ length: 300 }, (_, i) => i);
    const timer = setTimeout(() => abort.abort(), 0); // runs when scoring lets the event loop turn
    await expect(evaluatePerplexity(model, ids, { signal: abort.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(model.inputs).toHaveLength(1);
    clearTimeout(timer);
    const before = evaluatePerplexity(model, ids, { signal: AbortSignal.abort() });
    await expect(before).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('perplexity of a text', () => {
  it('begins every window with the token of the model, and counts the bytes of the text', async () => {
    await using engine = await Engine.load({ contextSize: 64 });
    const text = 'Once upon a time there was a king — and a “queen” — who had three daughters. '.repeat(4);
    const all = await evaluatePerplexity(engine, text, { window: 32 });
    const ids = engine.tokenizer.encode(text, { addSpecialTokens: false });
    expect(all.tokens).toBe(ids.length);
    expect(all.windows).toBe(Math.ceil(ids.length / 31));
    expect(all.bytes).toBe(Buffer.byteLength(text));
    expect(all.bitsPerByte).toBeCloseTo((all.nll * ids.length) / Math.LN2 / Buffer.byteLength(text), 12);
    const bos = engine.tokenizer.bosId!;
    const logits = await engine.logits([bos, ...ids.subarray(31, 61)]);
    const { vocabSize } = engine.model;
    let second = 0;
    for (let i = 0; i < 31; i++) {
      const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
      second += Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[ids[31 + i]!]!;
    }
    const upTo = async (maxTokens: number) => {
      const part = await evaluatePerplexity(engine, text, { window: 32, maxTokens });
      return part.nll * part.tokens;
    };
    expect((await upTo(62)) - (await upTo(31))).toBeCloseTo(second, 6);
  });

  it('counts the bytes of the tokens that were scored', async () => {
    await using engine = await Engine.load({ contextSize: 64 });
    const text = 'The old king said nothing';
    const ids = engine.tokenizer.encode(text, { addSpecialTokens: false });
    const bytesOf = (tokens: Int32Array) => Buffer.byteLength(engine.tokenizer.decode(tokens));
    expect((await evaluatePerplexity(engine, text, { maxTokens: 3 })).bytes).toBe(bytesOf(ids.subarray(0, 3)));
    expect((await evaluatePerplexity(engine, ids)).bytes).toBe(bytesOf(ids.subarray(1)));
  });
});

interface Expected {
  readonly results: Record<string, { file: string; tokens: number; nll_per_token: number; chunks: number[] }>;
}

describe('perplexity of stories260K', () => {
  itWithData('models/stories260K-gguf/stories260K-f32.gguf', 'is that of transformers', async (path) => {
    const { results } = JSON.parse(
      readFileSync(sharedData('models/stories260K/expected/perplexity.json')!, 'utf8'),
    ) as Expected;
    await using engine = await Engine.load({ model: path, kvDtype: 'f32' });
    for (const { file, tokens, nll_per_token, chunks } of Object.values(results)) {
      const whole = readFileSync(sharedData(file)!, 'utf8');
      const text = file.includes('shakespeare') ? whole.slice(0, 8000) : whole;
      const means: number[] = [];
      const result = await evaluatePerplexity(engine, text, {
        window: 256,
        onWindow: ({ value, tokens: scored }) => void means.push(Math.log(value) * scored),
      });
      expect(result.tokens).toBe(tokens);
      expect(Math.abs(result.nll - nll_per_token)).toBeLessThan(1e-5);
      chunks.forEach((chunk, i) => {
        const scored = Math.min(255, tokens - 255 * i);
        expect(Math.abs((means[i]! - (means[i - 1] ?? 0)) / scored - chunk)).toBeLessThan(2e-5);
      });
    }
  });
});
