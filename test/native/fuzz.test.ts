import { describe, expect, it } from 'vitest';
import { encodePlan } from '../../src/backend/encode-plan.js';
import { loadNativeAddon, type NativeFailure, type NativeHandle } from '../../src/backend/native-loader.js';
import { SAMPLING_WORDS } from '../../src/backend/sampling.js';
import { type OpCase, writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { csr, samplingRecords } from '../backend/sampling-records.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';
import { edges, hostile } from './hostile.js';

/** Rounds per test; more for a longer hunt, for instance under a sanitiser. */
const rounds = Number(process.env.ENGINE_FUZZ_ROUNDS ?? 400);

const folder = temporaryFolder();
const model = tinyLlama('fuzz', 'q4_0', 'q8', 'f16');
const [batch] = schedules['in one prefill']!;

const { below, mutate } = hostile(Number(process.env.ENGINE_FUZZ_SEED ?? 1));

/** Arrays of step(), by name. */
type Inputs = Record<(typeof inputNames)[number], Int32Array>;
const inputNames = [
  'tokenIds',
  'positions',
  'slotMapping',
  'queryStart',
  'contextLens',
  'blockTables',
  'sampling',
  'historyOffsets',
  'historyIds',
  'biasOffsets',
  'biasIds',
  'mask',
] as const;

const rows = Array.from({ length: 5 }, (_, row) => ({ row: 5 * row, topK: 7, topP: 0.9, flags: 3, numTop: 3 }));
const history = csr([3], [], [5, 6, 7], [], [116]);
const bias = csr([[3, 1]], [], [], [[116, -Infinity]], []);
const inputs: Inputs = {
  tokenIds: batch!.tokenIds,
  positions: batch!.positions,
  slotMapping: batch!.slotMapping,
  queryStart: batch!.queryStart,
  contextLens: batch!.contextLens,
  blockTables: batch!.blockTables,
  sampling: samplingRecords(...rows),
  historyOffsets: history.offsets,
  historyIds: history.ids,
  biasOffsets: bias.offsets,
  biasIds: bias.ids,
  mask: new Int32Array(rows.length * Math.ceil(117 / 32)).fill(-1),
};

/** Past all checks of TypeScript. Results have the size that unspoilt records ask for. */
function step(handle: NativeHandle, given: Inputs, numTop = 3, numSteps = 1): Promise<NativeFailure | undefined> {
  const numRows = given.sampling.length / SAMPLING_WORDS;
  return handle.step(
    given.tokenIds,
    given.positions,
    given.slotMapping,
    given.queryStart,
    given.contextLens,
    given.blockTables,
    given.sampling,
    given.historyOffsets,
    given.historyIds,
    given.biasOffsets,
    given.biasIds,
    bias.values,
    given.mask,
    {
      tokens: new Int32Array(numRows),
      logprobs: new Float32Array(numRows),
      topIds: new Int32Array(numRows * numTop),
      topLogprobs: new Float32Array(numRows * numTop),
    },
    numSteps,
  );
}

/** A failure native code reported in its own words, or success: anything but the end of the process. */
function tally(counts: Map<string, number>, failure: NativeFailure | undefined): void {
  const code = failure?.code ?? 'success';
  counts.set(code, (counts.get(code) ?? 0) + 1);
}

describe.skipIf(notBuilt)(`hostile input to native code${notBuilt ?? ''}`, () => {
  it.each([
    ['q8 activations', model],
    ['float32', tinyLlama('fuzz-f32', 'f32', 'f32', 'f32')],
  ] satisfies [string, OpCase][])('any plan words are refused or run, with %s', async (_, opCase) => {
    const { addon } = loadNativeAddon();
    const { words, names, files } = encodePlan(opCase.plan, writeWeights(opCase, folder), opCase.limits);
    const counts = new Map<string, number>();
    for (let round = 0; round < rounds; round++) {
      const handle = new addon.Session();
      const threads = 1 + below(2);
      const request = {
        words: mutate(words),
        names,
        files,
        isa: 'avx2',
        threads,
        oversubscribed: false,
        adaptive: false,
        chunkTime: 0,
      };
      const failure = await handle.load(request);
      tally(counts, failure ?? (await step(handle, inputs)));
      await handle.dispose();
    }
    expect([...counts.keys()].sort()).toEqual(expect.arrayContaining(['INTERNAL', 'success']));
  });

  it('any step is refused or run', async () => {
    const { addon } = loadNativeAddon();
    const encoded = encodePlan(model.plan, writeWeights(model, folder), model.limits);
    const handle = new addon.Session();
    expect(
      await handle.load({ ...encoded, isa: 'avx2', threads: 2, oversubscribed: false, adaptive: false, chunkTime: 0 }),
    ).toBeUndefined();
    const counts = new Map<string, number>();
    for (let round = 0; round < 5 * rounds; round++) {
      const name = inputNames[below(inputNames.length)]!;
      const numSteps = below(10) === 0 ? edges[below(edges.length)]! : 1;
      tally(counts, await step(handle, { ...inputs, [name]: mutate(inputs[name]) }, 3, numSteps));
    }
    expect(await step(handle, inputs)).toBeUndefined();
    expect([...counts.keys()].sort()).toEqual(['INTERNAL', 'success']);
    await handle.dispose();
  });
});
