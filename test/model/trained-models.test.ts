import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { sharedData } from '../shared-data.js';
import { testOnBackendsWithData } from './backends.js';
import { argmax, ModelRun, maxAbsDiff } from './run-model.js';

const TOLERANCE = 1e-4;

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** karpathy/llama2.c's run.c at temperature 0: six prompts, 200 positions each. */
interface Stories {
  readonly runs: {
    readonly prompt_ids: number[];
    readonly generated_ids: number[];
    readonly logits_last_prompt_pos: number[];
  }[];
}

describe('stories260K tells the stories of llama2.c', () => {
  for (const model of ['stories260K-hf', 'stories260K-gguf/stories260K-f32.gguf']) {
    testOnBackendsWithData(`models/${model}`, model, async (backend, path) => {
      const { runs } = readJson<Stories>(sharedData('models/stories260K/expected/greedy.json')!);
      const run = await ModelRun.open(backend, path);
      for (const { prompt_ids, generated_ids, logits_last_prompt_pos } of runs) {
        expect(maxAbsDiff((await run.logits(prompt_ids)).at(-1)!, logits_last_prompt_pos)).toBeLessThan(TOLERANCE);
        expect(await run.greedy(prompt_ids, generated_ids.length)).toEqual(generated_ids);
      }
      await run.dispose();
    });
  }
});

/** onnxruntime on the published model. */
interface CappGpt {
  readonly runs: {
    readonly prompt_ids: number[];
    readonly generated_ids: number[];
    /** After prompt and answer. */
    readonly logits_last: number[];
  }[];
  readonly random200: { readonly ids: number[]; readonly logits_last: number[]; readonly argmax: number[] };
}

testOnBackendsWithData('models/capp-gpt', 'capp-gpt, a trained GPT-2, plans as published', async (backend, path) => {
  const { runs, random200 } = readJson<CappGpt>(join(path, 'expected.json'));
  const run = await ModelRun.open(backend, path);
  for (const { prompt_ids, generated_ids, logits_last } of runs) {
    expect(await run.greedy(prompt_ids, generated_ids.length)).toEqual(generated_ids);
    const logits = await run.logits([...prompt_ids, ...generated_ids]);
    expect(maxAbsDiff(logits.at(-1)!, logits_last)).toBeLessThan(TOLERANCE);
  }
  const logits = await run.logits(random200.ids);
  expect(maxAbsDiff(logits.at(-1)!, random200.logits_last)).toBeLessThan(TOLERANCE);
  expect(logits.map(argmax)).toEqual(random200.argmax);
  await run.dispose();
});

/** minGPT's own activations, as bbycroft/llm-viz publishes them. */
interface NanoGpt {
  readonly input_ids: number[][];
  /** [input][position][token] */
  readonly logits: number[][][];
}

testOnBackendsWithData('models/nano-gpt-sort-hf', 'nano-gpt sorts, with an untied head', async (backend, path) => {
  const { input_ids, logits } = readJson<NanoGpt>(join(path, 'expected.json'));
  const run = await ModelRun.open(backend, path);
  for (const [input, ids] of input_ids.entries()) {
    const actual = await run.logits(ids);
    for (const [position, row] of logits[input]!.entries()) {
      expect(maxAbsDiff(actual[position]!, row)).toBeLessThan(TOLERANCE);
    }
  }
  await run.dispose();
});
