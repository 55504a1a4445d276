import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { sharedData, skipReason } from '../shared-data.js';
import { testOnBackendsWithData } from './backends.js';
import { argmax, ModelRun, maxAbsDiff } from './run-model.js';

/** expected.json of stories260K-gguf and rand-llama256-gguf: files quantised by llama.cpp. */
interface Quantised {
  readonly input_ids: number[];
  readonly results: Readonly<Record<string, QuantisedResult>>;
}

interface QuantisedResult {
  readonly file: string;
  /** Of transformers in float32 on the dequantised weights. */
  readonly dequant_fp32_last_logits: number[];
  /** [position] */
  readonly dequant_fp32_argmax: number[];
  readonly max_abs_diff_llamacpp_vs_dequant_fp32: number;
}

/** Of any logit: float32 rounding of the other implementation. */
const TOLERANCE = 1e-4;

/** Types whose matrices never meet 8-bit activations. */
const floatTypes = ['F32', 'F16', 'BF16'];

describe('a quantised model', () => {
  for (const folder of ['stories260K-gguf', 'rand-llama256-gguf']) {
    const path = sharedData(`models/${folder}/expected.json`);
    if (path === null) {
      test.skip(`${folder} (${skipReason(`models/${folder}`)})`, () => {});
      continue;
    }
    const { input_ids, results } = JSON.parse(readFileSync(path, 'utf8')) as Quantised;
    for (const [type, result] of Object.entries(results)) {
      if (type === 'TQ1_0') continue; // no file came with its values
      const file = `models/${folder}/${result.file}`;
      const expected = result.dequant_fp32_last_logits;
      testOnBackendsWithData(file, `${folder} ${type} is exact with f32 activations`, async (backend, model) => {
        const run = await ModelRun.open(backend, model, 'f32');
        const logits = await run.logits(input_ids);
        expect(maxAbsDiff(logits.at(-1)!, expected)).toBeLessThan(TOLERANCE);
        expect(logits.map(argmax)).toEqual(result.dequant_fp32_argmax);
        await run.dispose();
      });
      if (floatTypes.includes(type)) continue;
      // llama.cpp rounds activations to 8 bits too, so its distance from the exact result is the measure.
      const allowed = 1.5 * result.max_abs_diff_llamacpp_vs_dequant_fp32;
      testOnBackendsWithData(file, `${folder} ${type} is near with q8 activations`, async (backend, model) => {
        const run = await ModelRun.open(backend, model, 'q8');
        const last = (await run.logits(input_ids)).at(-1)!;
        expect(maxAbsDiff(last, expected)).toBeGreaterThan(0);
        expect(maxAbsDiff(last, expected)).toBeLessThan(allowed);
        await run.dispose();
      });
    }
  }
});
