import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Calibration, type CalibrationText } from '../../src/conversion/calibration.js';
import { quantiseModel } from '../../src/conversion/quantise-model.js';
import { openModel } from '../../src/formats/hub.js';
import type { ErrorModel } from '../../src/quantization/quantise-panel.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { testBackends } from '../model/backends.js';
import { ModelRun } from '../model/run-model.js';
import { tinyGpt2, tinyLlama, writeCheckpoint } from '../model/tiny-checkpoint.js';
import { sharedData, skipReason } from '../shared-data.js';
import { seededRandom } from '../tensor/random.js';

const folder = temporaryFolder();
const [reference] = testBackends;
const int4 = { layers: 'int4', head: 'int8' } as const;

/** Tokens of no language. */
function someText(numTokens: number, vocabSize: number, seed = 1): CalibrationText {
  const random = seededRandom(seed);
  return { tokenIds: Array.from({ length: numTokens }, () => Math.floor(random() * vocabSize)), prefix: [1] };
}

async function errorModels(
  path: string,
  text: CalibrationText,
  options: { maxBytes?: number; threads?: number } = {},
): Promise<Map<string, ErrorModel | undefined>> {
  const source = await openModel(path);
  const names = [...source.tensors.values()].filter(({ shape }) => shape.length === 2).map(({ name }) => name);
  const calibration = new Calibration(source, names, text, { threads: 2, ...options });
  const models = new Map<string, ErrorModel | undefined>();
  for (const name of names) models.set(name, await calibration.errorsOf(name));
  return models;
}

describe.skipIf(notBuilt)(`calibration${notBuilt ?? ''}`, () => {
  const llama = writeCheckpoint(join(folder, 'llama'), tinyLlama({ tie_word_embeddings: false }));

  it('sees the inputs of every linear layer, the head and stacked and transposed matrices included', async () => {
    const models = await errorModels(llama, someText(1100, 96));
    const without = [...models].filter(([, errors]) => errors === undefined).map(([name]) => name);
    expect(without).toEqual(['model.embed_tokens.weight']);
    for (const [name, errors] of models) {
      if (!errors) continue;
      const columns = errors.weights!.length;
      expect(Math.max(...errors.weights!), name).toBe(1);
      expect(Math.min(...errors.weights!), name).toBeGreaterThan(0);
      expect(errors.feedback!.length, name).toBe(columns * columns);
      expect(
        errors.feedback!.some((value, i) => value !== 0 && i % (columns + 1) !== 0),
        name,
      ).toBe(true);
    }
    const gpt2 = writeCheckpoint(join(folder, 'gpt2'), tinyGpt2());
    const ofGpt2 = await errorModels(gpt2, someText(1100, 96));
    const missing = [...ofGpt2].filter(([, errors]) => errors === undefined).map(([name]) => name);
    expect(
      missing.every((name) => /wte|wpe|lm_head/.test(name)),
      missing.join(),
    ).toBe(true);
  });

  it('says the same of matrices with the same input, and in any number of passes and threads', async () => {
    const text = someText(1100, 96);
    const models = await errorModels(llama, text);
    const prefix = 'model.layers.0.self_attn';
    expect(models.get(`${prefix}.k_proj.weight`)).toEqual(models.get(`${prefix}.q_proj.weight`));
    expect(await errorModels(llama, text, { maxBytes: 1 })).toEqual(models);
    expect(await errorModels(llama, text, { threads: 1 })).toEqual(models);
    expect(await errorModels(llama, someText(1100, 96, 2))).not.toEqual(models);
  });

  it('refuses texts that are too short', async () => {
    await expect(errorModels(llama, someText(1023, 96))).rejects.toMatchObject({
      code: 'CALIBRATION_TOO_SHORT',
      parameters: { tokens: 1023, needed: 1024 },
    });
  });

  it('is told in the file, and leaves nothing behind when it is aborted', async () => {
    const output = join(folder, 'aborted');
    const controller = new AbortController();
    const options = { types: int4, threads: 1, calibration: someText(3000, 96) };
    const aborted = quantiseModel(llama, output, {
      ...options,
      signal: controller.signal,
      onCalibration: () => controller.abort(),
    });
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(openModel(output)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    let tokens = 0;
    await quantiseModel(llama, output, { ...options, onCalibration: (done) => (tokens = done) });
    expect(tokens).toBeGreaterThan(2500);
    expect((await openModel(output)).tensors.get('model.layers.0.mlp.up_proj.weight')!.dtype).toBe('int4');
    rmSync(output, { recursive: true });
  });

  const stories = sharedData('models/stories260K-gguf/stories260K-f32.gguf');
  const reason = stories === null ? ` (${skipReason('models/stories260K-gguf')})` : '';
  it.skipIf(stories === null)(`moves a model's distributions less than rounding does${reason}`, async () => {
    const unquantised = await ModelRun.open(reference!, stories!, 'f32');
    // The model's own stories, as calibration and, from other beginnings, for the comparison.
    const written = await Promise.all(
      [
        [1, 403],
        [1, 407, 261],
      ].map((prompt) => unquantised.greedy(prompt, 250)),
    );
    const calibration = { tokenIds: Array.from({ length: 5 }, () => written[0]!).flat(), prefix: [1] };
    const exact = await unquantised.logits([1, ...written[1]!]);
    const divergence = async (name: string, text?: CalibrationText) => {
      const output = join(folder, `${name}.gguf`);
      await quantiseModel(stories!, output, { types: int4, threads: 2, calibration: text });
      const run = await ModelRun.open(reference!, output, 'f32');
      const logits = await run.logits([1, ...written[1]!]);
      await run.dispose();
      return exact.reduce((sum, row, t) => sum + divergenceOf(row, logits[t]!), 0) / exact.length;
    };
    const rounded = await divergence('rtn');
    expect(await divergence('gptq', calibration)).toBeLessThan(0.9 * rounded);
    await unquantised.dispose();
  });
});

/** KL(p ‖ q) of the distributions of two rows of logits, nats. */
function divergenceOf(p: Float32Array, q: Float32Array): number {
  const logSum = (row: Float32Array) => Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
  const [sumP, sumQ] = [logSum(p), logSum(q)];
  return p.reduce((sum, value, i) => sum + Math.exp(value - sumP) * (value - sumP - (q[i]! - sumQ)), 0);
}
