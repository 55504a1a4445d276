import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Session } from '../../src/backend/backend.js';
import { hiddenOf } from '../../src/backend/plan.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { openModel } from '../../src/formats/hub.js';
import { loadModel } from '../../src/model/load.js';
import { tinyLlama as llamaCheckpoint, tinyGpt2, writeCheckpoint } from '../model/tiny-checkpoint.js';
import { describeOnBackends } from './both-backends.js';
import { batchOf, CaseBuilder, defaultLimits, simpleBatch, writeWeights } from './case-builder.js';
import { samplingRecords } from './sampling-records.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();
const model = tinyLlama('hidden', 'q4_0', 'q8', 'f16');
const weights = writeWeights(model, folder);
const [prefill] = schedules['in one prefill']!;
const other = { ...prefill!, tokenIds: prefill!.tokenIds.map((id) => (id + 1) % 117) };
const hidden = hiddenOf(model.plan);

describeOnBackends('hidden states', (load) => {
  let session: Session;
  beforeAll(async () => {
    session = await load(model.plan, weights, model.limits);
  });
  afterAll(() => session.dispose());

  it('are what the head reads, with logits beside them or without', async () => {
    const both = await session.step(prefill!, { hidden: true, logits: true });
    expect(both.hidden).toEqual(await session.read(hidden));
    expect(both.hidden!.length).toBe(29 * hidden.width);
    expect(both.hidden!.every((value) => Number.isFinite(value))).toBe(true);
    const alone = await session.step(prefill!, { hidden: true });
    expect(alone.hidden).toEqual(both.hidden);
    expect(alone).not.toHaveProperty('logits');
    expect(await session.step(prefill!)).not.toHaveProperty('hidden');
  });

  it('of some rows are those of the rows that the records name', async () => {
    const all = (await session.step(prefill!, { hidden: true })).hidden!;
    const rows = [3, 4, 4, 28];
    const sampling = samplingRecords(...rows.map((row) => ({ row, flags: 0 })));
    const some = await session.step({ ...prefill!, sampling }, { hidden: true });
    const expected = rows.flatMap((row) => [...all.subarray(row * hidden.width, (row + 1) * hidden.width)]);
    expect([...some.hidden!]).toEqual(expected);
    expect(some.tokens).toEqual(new Int32Array(4).fill(-1));
  });

  it('are made without the head, unless a row needs its logits', async () => {
    const { logits } = await session.step(prefill!, { logits: true });
    await session.step(other, { hidden: true });
    // The place of the logits has not been written to.
    expect(await session.read(model.plan.logits)).toEqual(logits);

    const { logits: others } = await session.step(other, { logits: true });
    expect(others).not.toEqual(logits);
    const rows = Array.from({ length: 29 }, (_, row) => ({ row, flags: 0, temperature: 0 }));
    for (const flags of [SAMPLE, LOGPROBS]) {
      await session.step(prefill!, { logits: true });
      const sampling = samplingRecords(...rows.with(17, { row: 17, flags, temperature: 0 }));
      const result = await session.step({ ...other, sampling }, { hidden: true });
      expect(await session.read(model.plan.logits)).toEqual(others);
      expect(result.tokens[17]! >= 0).toBe(flags === SAMPLE);
    }
    await session.step(prefill!);
    expect(await session.read(model.plan.logits), 'without want').toEqual(logits);
  });

  it('are nothing where no row is asked for', async () => {
    const result = await session.step({ ...prefill!, sampling: new Int32Array(0) }, { hidden: true });
    expect(result.hidden).toEqual(new Float32Array(0));
  });

  it('are refused where no linear makes the logits', async () => {
    const builder = new CaseBuilder(5);
    const headless = builder.finish('headless', builder.input(8, 16), { steps: [], tolerance: 0 });
    const small = await load(headless.plan, writeWeights(headless, folder), headless.limits);
    await expect(small.step(simpleBatch(4), { hidden: true })).rejects.toMatchObject({ code: 'INTERNAL' });
    expect((await small.step(simpleBatch(4), { logits: true })).logits!.length).toBe(4 * 16);
    await small.dispose();
  });

  it.each([
    ['Llama', llamaCheckpoint()],
    ['Llama with tied embeddings', llamaCheckpoint({ tie_word_embeddings: true })],
    ['GPT-2', tinyGpt2()],
  ] as const)('are there in the plan of a model, %s', async (name, checkpoint) => {
    const loaded = loadModel(await openModel(writeCheckpoint(join(folder, name), checkpoint)), { activations: 'f32' });
    const { vocabSize } = loaded.config;
    const run = await load(loaded.plan, loaded.weights, { ...defaultLimits, contextSize: 32 });
    const batch = batchOf([{ start: 0, count: 5, blocks: [0], tokenIds: [1, 17, 42, 5, 80] }]);
    const full = await run.step(batch, { hidden: true, logits: true });
    expect((await run.step(batch, { hidden: true })).hidden).toEqual(full.hidden);
    // The head's matrix, by the name it has in either file.
    const head = ['lm_head.weight', 'model.embed_tokens.weight', 'wte.weight', 'transformer.wte.weight']
      .map((tensor) => checkpoint.tensors.find((candidate) => candidate.name === tensor))
      .find((tensor) => tensor !== undefined)!;
    const width = hiddenOf(loaded.plan).width;
    expect(full.hidden!.length).toBe(5 * width);
    for (let row = 0; row < 5; row++) {
      for (let id = 0; id < vocabSize; id++) {
        let logit = 0;
        for (let i = 0; i < width; i++) logit += full.hidden![row * width + i]! * head.values[id * width + i]!;
        expect(full.logits![row * vocabSize + id]).toBeCloseTo(logit, 4);
      }
    }
    await run.dispose();
  });
});
