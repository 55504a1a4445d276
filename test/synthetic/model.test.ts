import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openModel } from '../../src/formats/hub.js';
import { Engine } from '../../src/library/engine.js';
import { RandomWeights } from '../../src/synthetic/blocks.js';
import { syntheticBytes, writeSyntheticModel } from '../../src/synthetic/model.js';
import { type MatrixDType, matrixType, type SyntheticType, syntheticTypeNames } from '../../src/synthetic/types.js';
import { syntheticVocabulary } from '../../src/synthetic/vocabulary.js';
import { type DType, dtypes } from '../../src/tensor/dtype.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-synthetic-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const hash = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

async function write(name: string, type: SyntheticType, seed = 1): Promise<string> {
  const path = join(folder, name);
  await writeSyntheticModel(path, { shape: '15m', type, seed });
  return path;
}

describe('a synthetic model', () => {
  test('has the same bytes for the same seed, and others for another', async () => {
    const first = hash(await write('a.gguf', 'q4_0'));
    expect(hash(await write('b.gguf', 'q4_0'))).toBe(first);
    expect(hash(await write('c.gguf', 'q4_0', 2))).not.toBe(first);
    // On every machine, and until somebody changes them on purpose: figures are compared over time.
    expect(first).toMatchInlineSnapshot(`"080faa93538b1acbc498a71dea4b84d79466c37c0a8ef59aa812285131db0104"`);
  });

  test.each(syntheticTypeNames)('of type %s loads and answers, and contexts decide what it says', async (type) => {
    const model = await write(`${type}.gguf`, type);
    await using engine = await Engine.load({ model, threads: 1 });
    const prompts = ['once upon a time', 'the weather in hamburg', 'zebra'];
    const requests = prompts.map((prompt) => engine.complete({ prompt, maxTokens: 4, temperature: 0 }));
    const answers = (await Promise.all(requests)).map(({ tokenIds }) => String(tokenIds));
    expect(new Set(answers).size).toBe(prompts.length);
    const logits = await engine.logits(engine.tokenizer.encode('a'));
    expect(logits.every(Number.isFinite)).toBe(true);
    const [mean, deviation] = moments(logits);
    expect(Math.abs(mean!)).toBeLessThan(deviation! / 2);
    expect(deviation!).toBeGreaterThan(0.1);
    expect(deviation!).toBeLessThan(2);
  });

  test('says beforehand how many bytes its tensors have', async () => {
    const { tensors } = await openModel(await write('size.gguf', 'q4_k_m'));
    const bytes = [...tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(syntheticBytes('15m', 'q4_k_m')).toBe(bytes);
  });
});

test.each(['f32', 'f16', 'bf16', 'q8_0', 'q5_0', 'q4_0', 'q4_k', 'q6_k'] satisfies MatrixDType[])(
  'weights stored as %s have mean 0 and deviation 0.02',
  (dtype) => {
    const { blockBytes, blockSize, dequantise } = dtypes[dtype];
    const values = new Float32Array(1 << 19);
    const bytes = Buffer.concat(
      [...new RandomWeights(3).blocks(dtype, (values.length / blockSize) * blockBytes, 5)].map((b) => b.slice()),
    );
    for (let b = 0; b < values.length / blockSize; b++) dequantise(bytes, b * blockBytes, values, b * blockSize);
    const [mean, deviation] = moments(values);
    expect(Math.abs(mean!)).toBeLessThan(2e-4);
    expect(deviation!).toBeGreaterThan(0.018);
    expect(deviation!).toBeLessThan(0.022);
    expect(new Set(values.subarray(0, 256)).size).toBeGreaterThan(8);
  },
);

test("q4_k_m is llama.cpp's mix", () => {
  const count = (shape: { numLayers: number; tied: boolean }) => {
    const place = { ...shape, columns: 2048, layer: -1 };
    const down = Array.from({ length: shape.numLayers }, (_, layer) =>
      matrixType('q4_k_m', { ...place, role: 'down', layer }),
    );
    const of = (role: 'embedding' | 'output' | 'other') => matrixType('q4_k_m', { ...place, role });
    const sensitive = down.flatMap((dtype: DType, layer) => (dtype === 'q6_k' ? [layer] : []));
    return { sensitive, embedding: of('embedding'), output: of('output'), other: of('other') };
  };
  // The layers in which TinyLlama's and Llama 3.2's published files have q6_k.
  expect(count({ numLayers: 22, tied: false })).toEqual({
    sensitive: [0, 1, 4, 7, 10, 13, 16, 19, 20, 21],
    embedding: 'q4_k',
    output: 'q6_k',
    other: 'q4_k',
  });
  expect(count({ numLayers: 16, tied: true })).toMatchObject({
    sensitive: [0, 1, 4, 7, 10, 13, 14, 15],
    embedding: 'q6_k',
  });
  const narrow = { role: 'other', tied: false, layer: 0, numLayers: 6, columns: 288 } as const;
  expect(matrixType('q4_k_m', narrow)).toBe('q5_0');
  expect(matrixType('q6_k', narrow)).toBe('q8_0');
});

test.each([
  ['sentencepiece', 32_000],
  ['bytes', 128_256],
] as const)('a vocabulary of kind %s encodes every text in its tokens', (kind, size) => {
  const values = syntheticVocabulary(kind, size).map(([key, typed]) => [key, 'value' in typed ? typed.value : null]);
  const tokenizer = tokenizerFromGguf(new Map(values as [string, unknown][]), 'synthetic.gguf');
  expect(tokenizer.vocabSize).toBe(size);
  const text = 'the Grüße 🦊 of\n\n42 zebras';
  const ids = tokenizer.encode(text);
  expect(tokenizer.decode(ids)).toBe(text);
  expect(ids.length).toBeLessThan(Buffer.byteLength(text)); // letters were put together
  expect([...tokenizer.eosIds].length).toBeGreaterThan(0);
});

function moments(values: Float32Array): number[] {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length)];
}
