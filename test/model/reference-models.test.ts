import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect } from 'vitest';
import { testOnBackendsWithData } from './backends.js';
import { ModelRun, maxAbsDiff } from './run-model.js';

/** expected.json of hf-archs: transformers 5.18 in float32 on random weights. */
interface Expected {
  readonly input_ids: number[];
  readonly logits_first: number[];
  readonly logits_last: number[];
  /** [position][5][token id, logit] */
  readonly top5: [number, number][][];
  readonly prompt_ids: number[];
  readonly generated_ids: number[];
}

/** Largest difference of any logit: float32 rounding of the other implementation. */
const TOLERANCE = 1e-4;

const models = [
  'llama',
  'llama-bias-headdim',
  'llama-sharded',
  'llama-yarn',
  'llama3-rope-scaled',
  'mistral-sliding',
  'qwen2',
  'qwen3',
  'gpt2',
];
/** Without the sharded, biased and sliding ones, which are not there in GGUF. */
const ggufModels = ['llama', 'llama-yarn', 'llama3-rope-scaled', 'qwen2', 'qwen3', 'gpt2'];

async function expectSameOutput(run: ModelRun, expected: Expected): Promise<void> {
  const logits = await run.logits(expected.input_ids);
  expect(maxAbsDiff(logits[0]!, expected.logits_first)).toBeLessThan(TOLERANCE);
  expect(maxAbsDiff(logits.at(-1)!, expected.logits_last)).toBeLessThan(TOLERANCE);
  for (const [position, top] of expected.top5.entries()) {
    const actual = top.map(([id]) => logits[position]![id]!);
    const values = top.map(([, value]) => value);
    expect(maxAbsDiff(actual, values), `position ${position}`).toBeLessThan(TOLERANCE);
  }
  expect(await run.greedy(expected.prompt_ids, expected.generated_ids.length)).toEqual(expected.generated_ids);
  await run.dispose();
}

function readExpected(path: string): Expected {
  return JSON.parse(readFileSync(path, 'utf8')) as Expected;
}

describe('models give the logits and the greedy tokens of transformers', () => {
  for (const model of models) {
    testOnBackendsWithData(`models/hf-archs/${model}`, `${model}, safetensors`, async (backend, path) => {
      await expectSameOutput(await ModelRun.open(backend, path), readExpected(join(path, 'expected.json')));
    });
  }
  for (const model of ggufModels) {
    testOnBackendsWithData(`models/gguf-archs/${model}-f32.gguf`, `${model}, GGUF`, async (backend, path) => {
      const expected = join(dirname(path), '../hf-archs', model, 'expected.json');
      await expectSameOutput(await ModelRun.open(backend, path), readExpected(expected));
    });
  }
});
