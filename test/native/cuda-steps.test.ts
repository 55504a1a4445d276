import { beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Batch, Session, SessionLimits, StepResult } from '../../src/backend/backend.js';
import { encodePlan } from '../../src/backend/encode-plan.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { type NativeCudaOptions, nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { loadNativeAddon } from '../../src/backend/native-loader.js';
import { referenceBackend } from '../../src/backend/reference-session.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { EngineLoop } from '../../src/engine/engine-loop.js';
import { resolveSampling } from '../../src/engine/sampler.js';
import { batchOf, CaseBuilder, defaultLimits, type OpCase, writeWeights } from '../backend/case-builder.js';
import { followingBatch } from '../backend/following-batch.js';
import { csr, type RecordOptions, samplingRecords } from '../backend/sampling-records.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyLlama } from '../backend/tiny-llama.js';
import { request } from '../engine/requests.js';
import { seededRandom } from '../tensor/random.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';
import { edges, hostile } from './hostile.js';

const folder = temporaryFolder();
/** Of hostile input; more for a longer hunt. */
const rounds = Number(process.env.ENGINE_FUZZ_ROUNDS ?? 60);
const VOCAB = 117;
const BLOCK_SIZE = 4;
const BLOCKS = 140; // of each sequence: contexts cross the chunks of attention, which have 256 positions

const model = tinyLlama('steps', 'q8_0', 'f32', 'f16');
const limits: SessionLimits = {
  ...model.limits,
  blockSize: BLOCK_SIZE,
  contextSize: BLOCKS * BLOCK_SIZE,
  numBlocks: 5 * BLOCKS,
};

/** Blocks of sequence s, scattered. */
const blocksOf = (s: number): number[] => Array.from({ length: BLOCKS }, (_, b) => (b * 5 + s) % (5 * BLOCKS));

/** The last tokens of contexts of these lengths; before them there is nothing but zeros. */
function prompts(lengths: readonly number[], seed: number): Batch {
  const random = seededRandom(seed);
  return batchOf(
    lengths.map((length, s) => {
      const count = Math.min(length, 6);
      const tokenIds = Array.from({ length: count }, () => Math.floor(random() * VOCAB));
      return { start: length - count, count, tokenIds, blocks: blocksOf(s), wanted: [count - 1] };
    }),
    BLOCK_SIZE,
  );
}

/** One token for each sequence, after its context. */
function decode(lengths: readonly number[], rows: readonly RecordOptions[], seed: number): Batch {
  const parts = lengths.map((start, s) => ({
    start,
    count: 1,
    tokenIds: [(seed + 7 * s) % VOCAB],
    blocks: blocksOf(s),
  }));
  const sampling = samplingRecords(...rows.map((row, s) => ({ ...row, row: s })));
  const bias = csr(...rows.map((_, s) => (s % 2 ? [[3, 1.5] as const, [90 + s, -2] as const] : [])));
  return { ...batchOf(parts, BLOCK_SIZE), sampling, bias };
}

type Results = Pick<StepResult, 'tokens' | 'logprobs' | 'topIds' | 'topLogprobs'>;

/** The same calls, each step by itself. */
async function oneByOne(session: Session, batch: Batch, numSteps: number): Promise<{ results: Results; last: Batch }> {
  const steps: StepResult[] = [];
  let at = batch;
  for (let i = 0; i < numSteps; i++) {
    if (i > 0) at = followingBatch(at, steps.at(-1)!.tokens, BLOCK_SIZE);
    steps.push(await session.step(at));
  }
  const all = (of: (step: StepResult) => Int32Array | Float32Array) => steps.flatMap((step) => [...of(step)]);
  const results = {
    tokens: Int32Array.from(all((step) => step.tokens)),
    logprobs: Float32Array.from(all((step) => step.logprobs)),
    topIds: Int32Array.from(all((step) => step.topIds)),
    topLogprobs: Float32Array.from(all((step) => step.topLogprobs)),
  };
  return { results, last: at };
}

describe.skipIf(noEmulatedCuda)(`several steps a call${noEmulatedCuda ?? ''}`, { timeout: 120_000 }, () => {
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);

  const load = (backend: Backend, opCase: OpCase = model, more: Partial<SessionLimits> = limits) =>
    backend.load(opCase.plan, writeWeights(opCase, folder), { ...opCase.limits, ...more });
  const cuda = (options: NativeCudaOptions = {}) => nativeCudaBackend({ library, threads: 2, ...options });

  const greedy: RecordOptions = { flags: SAMPLE, temperature: 0 };
  const cases: readonly [string, number[], RecordOptions[]][] = [
    ['one sequence', [11], [greedy]],
    ['one that crosses chunks', [507], [{ flags: SAMPLE | LOGPROBS, temperature: 1.3, numTop: 4 }]],
    [
      'five of different lengths',
      [1, 509, 30, 255, 16],
      [
        { ...greedy, flags: SAMPLE | LOGPROBS, numTop: 2 },
        { temperature: 0.7, topK: 20 },
        { flags: SAMPLE | LOGPROBS, temperature: 1, numTop: 5 },
        { temperature: 2, topP: 0.9, minP: 0.01 },
        { flags: SAMPLE | LOGPROBS, temperature: 1.2 },
      ],
    ],
  ];

  const ways = [
    ['as graphs', true],
    ['launch by launch', false],
  ] as const;
  it.each(
    cases.flatMap(([name, lengths, rows]) => ways.map(([way, graphs]) => ({ name, lengths, rows, way, graphs }))),
  )('have the bits of single steps: $name, $way', async ({ lengths, rows, graphs }) => {
    const together = await load(cuda({ graphs }));
    const apart = await load(cuda({ graphs }));
    for (const seed of [1, 2]) {
      const seeded = rows.map((row, s) => ({ ...row, seedLow: 100 * seed + s }));
      for (const session of [together, apart]) await session.step(prompts(lengths, seed));
      let at = decode(lengths, seeded, seed);
      for (const numSteps of [8, 2, 8]) {
        const { results, last } = await oneByOne(apart, at, numSteps);
        expect(await together.step({ ...at, numSteps })).toEqual(results);
        expect(results.tokens.every((token) => token >= 0)).toBe(true);
        at = followingBatch(last, results.tokens.slice(-lengths.length), BLOCK_SIZE);
      }
      // Keys and values, too.
      const { logits } = await together.step(at, { logits: true });
      expect(logits).toEqual((await apart.step(at, { logits: true })).logits);
    }
    await Promise.all([together.dispose(), apart.dispose()]);
  });

  it('fill the context and the last block, and no more', async () => {
    const length = limits.contextSize - 8;
    const session = await load(cuda());
    const batch = decode([length], [greedy], 1);
    expect((await session.step({ ...batch, numSteps: 8 })).tokens).toHaveLength(8);
    const longer = followingBatch(batch, Int32Array.of(1), BLOCK_SIZE);
    await expect(session.step({ ...longer, numSteps: 8 })).rejects.toThrow(/contextLens\[0\]/);
    await session.dispose();
  });

  it('end for a row that has nothing to sample from, and go on for others', async () => {
    const session = await load(cuda());
    const batch = decode([9, 20], [greedy, { temperature: 1, seedLow: 5, flags: SAMPLE | LOGPROBS, numTop: 1 }], 3);
    const banned = Array.from({ length: VOCAB }, (_, id) => [id, Number.NEGATIVE_INFINITY] as const);
    const { results } = await oneByOne(session, decode([20], [{ temperature: 1, seedLow: 5 }], 10), 4);
    const result = await session.step({ ...batch, bias: csr(banned, []), numSteps: 4 });
    expect([...result.tokens].filter((_, i) => i % 2 === 0)).toEqual([-1, -1, -1, -1]);
    expect([...result.tokens].filter((_, i) => i % 2 === 1)).not.toContain(-1);
    expect(results.tokens).toHaveLength(4);
    await session.dispose();
  });

  it('are refused where they cannot follow each other', async () => {
    const session = await load(cuda());
    const batch = { ...decode([9, 20], [greedy, greedy], 1), numSteps: 4 };
    const refused = (more: Partial<Batch>, why: RegExp) =>
      expect(session.step({ ...batch, ...more })).rejects.toThrow(why);
    await refused({ numSteps: 9 }, /9 steps; this session does at most 8/);
    await refused({ numSteps: 0 }, /0 steps/);
    await refused({ numSteps: 1.5 }, /1.5 steps/);
    await refused({ history: csr([1], []) }, /neither history nor mask/);
    await refused({ mask: new Int32Array(2 * 4).fill(-1) }, /neither history nor mask/);
    await refused({ sampling: samplingRecords({ ...greedy, row: 1 }, { ...greedy, row: 0 }) }, /samples nothing/);
    await refused({ sampling: samplingRecords(greedy, { row: 1, flags: LOGPROBS }) }, /samples nothing/);
    await refused({ sampling: samplingRecords(greedy), bias: csr([]) }, /one token and one row/);
    await refused({ ...prompts([9, 20], 1), bias: csr([], []) }, /one token and one row/);
    await refused({ positions: Int32Array.of(8, 20) }, /positions\[0\] is 8/);
    await refused(
      { blockTables: batch.blockTables.map((block, i) => (i === 2 ? -1 : block)) },
      /blockTables\[2\] is -1/,
    );
    await refused(
      { blockTables: batch.blockTables.map((block, i) => (i === 3 ? 5 * BLOCKS : block)) },
      /blockTables\[3\]/,
    );
    for (const want of [{ logits: true }, { hidden: true }]) {
      await expect(session.step(batch, want)).rejects.toThrow(/neither logits nor hidden states/);
    }
    expect((await session.step(batch)).tokens).toHaveLength(8);
    await session.dispose();
    for (const backend of [nativeCpuBackend({ threads: 1 }), referenceBackend()]) {
      const other = await load(backend);
      expect(other.maxSteps).toBe(1);
      await expect(other.step(batch)).rejects.toThrow(/a call of 4 steps; this session does at most 1/);
      await other.dispose();
    }
  });

  it('are refused or run, whatever is in their arrays', async () => {
    const { addon } = loadNativeAddon();
    const handle = new addon.Session();
    const cudaRequest = { library, device: 0, parts: 1, graphs: false, fused: true, overlaps: true };
    const settings = { isa: 'scalar', threads: 1, oversubscribed: false, adaptive: false, chunkTime: 0 };
    const encoded = encodePlan(model.plan, writeWeights(model, folder), model.limits);
    expect(await handle.load({ ...encoded, ...settings, cuda: cudaRequest })).toBeUndefined();
    // Three sequences whose last tokens are those of the context, of a block, and of neither.
    const parts = [57, 31, 20].map((start, s) => {
      const blocks = Array.from({ length: 16 }, (_, b) => (b * 3 + s) % 64);
      return { start, count: 1, tokenIds: [s], blocks };
    });
    const given = { ...batchOf(parts, BLOCK_SIZE), sampling: samplingRecords(...parts.map((_, row) => ({ row }))) };
    const names = ['tokenIds', 'positions', 'slotMapping', 'queryStart', 'contextLens', 'blockTables'] as const;
    const all = [...names, 'sampling'] as const;
    const { below, mutate } = hostile(Number(process.env.ENGINE_FUZZ_SEED ?? 1));
    const counts = new Map<string, number>();
    for (let round = 0; round < rounds; round++) {
      const name = all[below(all.length)]!;
      const batch = { ...given, [name]: round === 0 ? given[name] : mutate(given[name]) };
      const numSteps = round > 0 && below(10) === 0 ? edges[below(edges.length)]! : 2 + below(6);
      const places = 3 * (numSteps >= 1 && numSteps <= 8 ? numSteps : 1);
      const results = {
        tokens: new Int32Array(places),
        logprobs: new Float32Array(places),
        topIds: new Int32Array(0),
        topLogprobs: new Float32Array(0),
      };
      const [tokenIds, positions, slotMapping, queryStart, contextLens, blockTables] = names.map((each) => batch[each]);
      const failure = await handle.step(
        tokenIds!,
        positions!,
        slotMapping!,
        queryStart!,
        contextLens!,
        blockTables!,
        batch.sampling,
        ...([undefined, undefined, undefined, undefined, undefined, undefined] as const),
        results,
        numSteps,
      );
      counts.set(failure?.code ?? 'success', (counts.get(failure?.code ?? 'success') ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(['INTERNAL', 'success']);
    await handle.dispose();
  });

  it('are none with a head that knows more tokens than the embeddings', async () => {
    const builder = new CaseBuilder(8);
    const logits = builder.plan.linear(builder.input(20, 64), builder.matrix('f32', 21, 64), null, 'f32');
    const wide = builder.finish('wide head', logits, { steps: [], tolerance: 0 });
    const session = await load(cuda(), wide, defaultLimits);
    expect(session.maxSteps).toBe(1);
    await session.dispose();
  });

  it('are cut short by dispose', async () => {
    const session = await load(cuda());
    const call = session.step({ ...decode([9], [greedy], 1), numSteps: 8 });
    await Promise.all([expect(call).rejects.toMatchObject({ code: 'DISPOSED' }), session.dispose()]);
  });

  it('give answers of the loop that single steps give', async () => {
    const answersWith = async (maxStepsPerCall: number) => {
      const session = await load(cuda());
      let longest = 1;
      const counted: Session = Object.assign(Object.create(session) as Session, {
        step: (batch: Batch, want = {}) => {
          longest = Math.max(longest, batch.numSteps ?? 1);
          return session.step(batch, want);
        },
        dispose: () => session.dispose(),
        maxSteps: session.maxSteps,
      });
      const loop = new EngineLoop(counted, limits, { vocabSize: VOCAB, hiddenSize: 64, maxStepsPerCall });
      const answers = [3, 17, 30].map(async (length, i) => {
        const sampling = resolveSampling({ seed: i, temperature: i, logprobs: 2 * i }, VOCAB);
        const prompt = Array.from({ length }, (_, t) => (t * 31 + i) % VOCAB);
        const tokens = [];
        for await (const token of loop.submit(request(prompt, 12 + 5 * i, { sampling }))) tokens.push(token);
        return tokens;
      });
      const all = await Promise.all(answers);
      loop.checkIntegrity();
      await loop.dispose();
      return { all, longest };
    };
    const single = await answersWith(1);
    const several = await answersWith(8);
    expect([single.longest, several.longest]).toEqual([1, 8]);
    expect(several.all).toEqual(single.all);
    expect(several.all[2]!.at(-1)!.top).toHaveLength(4);
  });
});
