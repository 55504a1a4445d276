import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import { EngineError } from '../../src/base/errors.js';
import { openModel } from '../../src/formats/hub.js';
import { Engine } from '../../src/library/engine.js';
import { loadModel } from '../../src/model/load.js';
import type { PromptRequest } from '../../src/serving/completer.js';
import { type EmbeddingRequest, type Pooling, type PoolingLoop, TextEmbedder } from '../../src/serving/embedder.js';
import { writeTinyChatModel } from '../cli/tiny-chat-model.js';
import { testBackends, testOnBackends, testOnBackendsWithData } from '../model/backends.js';
import { maxAbsDiff } from '../model/run-model.js';

const HIDDEN_SIZE = 6;
const CONTEXT_SIZE = 16;
const SPACE = 32;

/** Tokens are UTF-16 code units. */
const prompts = {
  readPrompt({ prompt, tokenIds }: PromptRequest, limit: number): Int32Array {
    const ids = prompt === undefined ? Int32Array.from(tokenIds!) : Int32Array.from(prompt, (c) => c.charCodeAt(0));
    if (ids.length === 0) throw new EngineError('PROMPT_EMPTY', {});
    if (ids.length > limit) throw new EngineError('PROMPT_TOO_LONG', { tokens: ids.length, limit });
    return ids;
  },
};

/** Vectors that depend on every token, after as many turns of the event loop as the prompt has tokens. */
class FakeLoop implements PoolingLoop {
  readonly limits = { contextSize: CONTEXT_SIZE };
  readonly tenants = new Set<string | undefined>();
  submitted = 0;
  running = 0;
  mostRunning = 0;

  async pooled(
    promptIds: Int32Array,
    pooling: Pooling,
    { tenant, signal }: { tenant?: string | undefined; signal?: AbortSignal | undefined },
  ): Promise<Float32Array> {
    this.tenants.add(tenant);
    this.submitted++;
    this.mostRunning = Math.max(this.mostRunning, ++this.running);
    let aborted = false;
    const onAbort = () => {
      aborted = true;
    };
    signal?.addEventListener('abort', onAbort);
    try {
      for (const _ of promptIds) {
        if (aborted) throw new EngineError('ABORTED', {});
        await new Promise(setImmediate);
      }
      return vectorOf(pooling === 'last' ? promptIds.slice(-1) : promptIds);
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.running--;
    }
  }
}

/** The same loop, which refuses to run more than `limit` at once. */
function queueOf(loop: FakeLoop, limit: number): PoolingLoop {
  return {
    limits: loop.limits,
    pooled: async (ids, pooling, options) => {
      if (loop.running >= limit) throw new EngineError('QUEUE_FULL', { waiting: loop.running, limit });
      return loop.pooled(ids, pooling, options);
    },
  };
}

/** [HIDDEN_SIZE]; zeros for spaces, not finite for `!`. */
function vectorOf(ids: Int32Array): Float32Array {
  if (ids.includes('!'.charCodeAt(0))) return new Float32Array(HIDDEN_SIZE).fill(Number.NaN);
  const sums = Array.from({ length: HIDDEN_SIZE }, (_, i) =>
    ids.reduce((sum, id) => sum + (id === SPACE ? 0 : Math.sin(id * (i + 1))), 0),
  );
  return Float32Array.from(sums, (sum) => sum / ids.length);
}

function unit(values: Float32Array): Float32Array {
  const length = Math.hypot(...values);
  return values.map((value) => value / length);
}

const codes = (text: string) => Int32Array.from(text, (c) => c.charCodeAt(0));

function setUp() {
  const loop = new FakeLoop();
  return { loop, embedder: new TextEmbedder(loop, prompts, HIDDEN_SIZE) };
}

async function errorOf(request: EmbeddingRequest): Promise<{ error: EngineError; submitted: number }> {
  const { loop, embedder } = setUp();
  const error = await embedder.embed(request).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(EngineError);
  expect(loop.running).toBe(0);
  return { error: error as EngineError, submitted: loop.submitted };
}

function expectClose(actual: Float32Array, expected: Float32Array): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 6);
}

describe('TextEmbedder', () => {
  it('gives a vector of length 1 for each text or list of ids, in their order', async () => {
    const { embedder } = setUp();
    const { vectors, promptTokens } = await embedder.embed({ inputs: ['a longer text', 'b', [97, 98], codes('xyz')] });
    expect(promptTokens).toBe(13 + 1 + 2 + 3);
    const expected = ['a longer text', 'b', 'ab', 'xyz'].map((text) => unit(vectorOf(codes(text))));
    vectors.forEach((vector, i) => {
      expectClose(vector, expected[i]!);
    });
  });

  it('pools the last token when told to', async () => {
    const { embedder } = setUp();
    const { vectors } = await embedder.embed({ inputs: ['hello'], pooling: 'last' });
    expectClose(vectors[0]!, unit(vectorOf(codes('o'))));
  });

  it('cuts to the first dimensions before it normalises', async () => {
    const { embedder } = setUp();
    const { vectors } = await embedder.embed({ inputs: ['hello'], dimensions: 2 });
    expectClose(vectors[0]!, unit(vectorOf(codes('hello')).slice(0, 2)));
  });

  it('leaves a vector of zeros as it is', async () => {
    const { embedder } = setUp();
    const { vectors } = await embedder.embed({ inputs: ['  '] });
    expect([...vectors[0]!]).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('takes 2,048 inputs, submits 64 at a time, all for the same tenant', async () => {
    const { loop, embedder } = setUp();
    const inputs = Array.from({ length: 2048 }, (_, i) => String.fromCharCode(65 + (i % 50)).repeat(1 + (i % 5)));
    const { vectors } = await embedder.embed({ inputs, tenant: 'school' });
    expect(vectors).toHaveLength(2048);
    for (const i of [0, 1000, 2047]) expectClose(vectors[i]!, unit(vectorOf(codes(inputs[i]!))));
    expect(loop.submitted).toBe(2048);
    expect(loop.mostRunning).toBe(64);
    expect([...loop.tenants]).toEqual(['school']);
  });

  it('takes a text as long as the context: no room for an answer is needed', async () => {
    const { embedder } = setUp();
    expect((await embedder.embed({ inputs: ['x'.repeat(CONTEXT_SIZE)] })).promptTokens).toBe(CONTEXT_SIZE);
  });

  it('rejects with ABORTED, runs nothing on, and warns of nothing', async () => {
    const { loop, embedder } = setUp();
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on('warning', onWarning);
    const client = new AbortController();
    const inputs = Array.from({ length: 300 }, () => 'some words');
    const embedding = embedder.embed({ inputs, signal: client.signal });
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(loop.running).toBe(64);
    client.abort();
    await expect(embedding).rejects.toMatchObject({ code: 'ABORTED' });
    expect(loop.running).toBe(0);
    expect(loop.submitted).toBe(64);
    await new Promise(setImmediate);
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });

  it('submits nothing for a signal that is aborted already', async () => {
    const { error, submitted } = await errorOf({ inputs: ['a'], signal: AbortSignal.abort() });
    expect(error.code).toBe('ABORTED');
    expect(submitted).toBe(0);
  });

  it('cancels the others when one fails', async () => {
    const loop = new FakeLoop();
    const failing = {
      limits: loop.limits,
      pooled: (...[ids, pooling, options]: Parameters<PoolingLoop['pooled']>) =>
        ids[0] === 'f'.charCodeAt(0)
          ? Promise.reject(new EngineError('DISPOSED', { what: 'the engine' }))
          : loop.pooled(ids, pooling, options),
    };
    const inputs = [...Array.from({ length: 200 }, () => 'long enough'), 'fail'];
    inputs.splice(10, 0, 'fail');
    const embedding = new TextEmbedder(failing, prompts, HIDDEN_SIZE).embed({ inputs });
    await expect(embedding).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(loop.running).toBe(0);
    expect(loop.submitted).toBeLessThan(64);
  });

  it.each([
    [3, 40],
    [1, 1],
  ])('gets by with a queue of %i', async (limit, numInputs) => {
    const { loop } = setUp();
    const queue = queueOf(loop, limit);
    const inputs = Array.from({ length: numInputs }, (_, i) => String.fromCharCode(65 + i).repeat(1 + (i % 4)));
    const { vectors } = await new TextEmbedder(queue, prompts, HIDDEN_SIZE).embed({ inputs });
    for (const [i, input] of inputs.entries()) expectClose(vectors[i]!, unit(vectorOf(codes(input))));
    expect(loop.mostRunning).toBeLessThanOrEqual(limit);
  });

  it('rejects with QUEUE_FULL when others fill the queue', async () => {
    const { loop } = setUp();
    const embedding = new TextEmbedder(queueOf(loop, 0), prompts, HIDDEN_SIZE).embed({ inputs: ['a', 'b', 'c'] });
    await expect(embedding).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    expect(loop.submitted).toBe(0);
  });

  it('lets other work run while it reads many texts', async () => {
    const { loop } = setUp();
    const slow = {
      readPrompt(request: PromptRequest, limit: number) {
        const end = performance.now() + 2;
        while (performance.now() < end);
        return prompts.readPrompt(request, limit);
      },
    };
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const inputs = Array.from({ length: 20 }, () => 'a');
    let tokenised = 0;
    const embedding = new TextEmbedder(loop, slow, HIDDEN_SIZE).embed({ inputs }).then(() => {
      tokenised = turns;
    });
    await embedding;
    clearInterval(timer);
    expect(tokenised).toBeGreaterThan(2);
  });

  const hostile = (request: unknown) => request as EmbeddingRequest;
  it.each<[string, EmbeddingRequest, RegExp]>([
    ['no inputs', { inputs: [] }, /^inputs is a list of 0; expected a list of 1 to 2048/],
    ['too many', { inputs: Array.from({ length: 2049 }, () => 'a') }, /^inputs is a list of 2049/],
    ['a text alone', hostile({ inputs: 'abc' }), /^inputs is "abc"/],
    ['nothing', hostile({}), /^inputs is missing/],
    ['an input that is none', hostile({ inputs: ['a', 7] }), /^inputs\[1\] is 7; expected a text or a list/],
    ['an empty text', { inputs: ['a', '', 'b'] }, /^input 1 is empty/],
    ['no ids', { inputs: [[]] }, /^input 0 is empty/],
    [
      'a text that is too long',
      { inputs: ['a', 'b', 'c'.repeat(17)] },
      /^input 2 has 17 tokens; the context allows 16/,
    ],
    ['another pooling', hostile({ inputs: ['a'], pooling: 'max' }), /^pooling is "max"; expected one of mean, last/],
    ['no dimensions', { inputs: ['a'], dimensions: 0 }, /^dimensions is 0; expected a whole number from 1 to 6/],
    ['too many dimensions', { inputs: ['a'], dimensions: 7 }, /^dimensions is 7/],
    ['half a dimension', { inputs: ['a'], dimensions: 1.5 }, /^dimensions is 1.5/],
  ])('refuses %s before anything is computed', async (_, request, message) => {
    const { error, submitted } = await errorOf(request);
    expect(error.message).toMatch(message);
    expect(submitted).toBe(0);
  });

  it('says which vector is not finite', async () => {
    const { error } = await errorOf({ inputs: ['a', 'b!'] });
    expect(error.code).toBe('EMBEDDING_INVALID');
    expect(error.message).toContain('input 1 is not finite');
  });
});

type BackendOfEngine = 'native-cpu' | 'reference';

const folder = mkdtempSync(join(tmpdir(), 'engine-embed-'));
const tinyModel = writeTinyChatModel(join(folder, 'tiny.gguf'));

/** The last norm's output for each token of a prompt, [ids.length][hiddenSize], by the reference interpreter alone. */
async function hiddenStates(path: string, ids: Int32Array): Promise<Float32Array[]> {
  const { plan, weights, config } = loadModel(await openModel(path), { activations: 'f32' });
  const numBlocks = Math.ceil(ids.length / 16);
  const interpreter = await testBackends[0]!.load(plan, weights, {
    maxTokens: ids.length,
    maxRows: ids.length,
    maxSequences: 1,
    contextSize: config.contextLength,
    blockSize: 16,
    numBlocks,
    kvDtype: 'f32',
  });
  const positions = ids.map((_, i) => i);
  const sampling = new Int32Array(ids.length * SAMPLING_WORDS);
  for (const row of positions) sampling[row * SAMPLING_WORDS + samplingIndex.row] = row; // nothing is sampled
  const { hidden } = await interpreter.step(
    {
      tokenIds: ids,
      positions,
      slotMapping: positions,
      queryStart: Int32Array.of(0, ids.length),
      contextLens: Int32Array.of(ids.length),
      blockTables: Int32Array.from({ length: numBlocks }, (_, block) => block),
      sampling,
    },
    { hidden: true },
  );
  return Array.from(positions, (row) => hidden!.slice(row * config.hiddenSize, (row + 1) * config.hiddenSize));
}

describe('embeddings of a model', () => {
  testOnBackends('are its hidden states pooled, whatever they are batched with', async ({ name }) => {
    const backend = name as BackendOfEngine;
    await using engine = await Engine.load({ model: tinyModel, backend, activations: 'f32', kvDtype: 'f32' });
    const texts = ['Ein König', 'b', 'The fox said nothing for a long time. '.repeat(5), '世界'];
    const [mean, last, alone] = await Promise.all([
      engine.embed({ inputs: texts }),
      engine.embed({ inputs: texts, pooling: 'last' }),
      engine.embed([texts[2]!]),
    ]);
    expect(alone[0]).toEqual(mean.vectors[2]);
    for (const [i, text] of texts.entries()) {
      const hidden = await hiddenStates(tinyModel, engine.tokenizer.encode(text));
      const sum = hidden[0]!.map((_, k) => hidden.reduce((total, row) => total + row[k]!, 0));
      expect(maxAbsDiff(mean.vectors[i]!, unit(sum))).toBeLessThan(1e-5);
      expect(maxAbsDiff(last.vectors[i]!, unit(hidden.at(-1)!))).toBeLessThan(1e-5);
    }
    expect(mean.promptTokens).toBe(texts.reduce((sum, text) => sum + engine.tokenizer.encode(text).length, 0));
  });

  testOnBackends('leave nothing running when they are aborted', async ({ name }) => {
    await using engine = await Engine.load({ model: tinyModel, backend: name as BackendOfEngine });
    const client = new AbortController();
    const inputs = Array.from({ length: 500 }, (_, i) => `text number ${i}, `.repeat(6));
    const embedding = engine.embed({ inputs, signal: client.signal });
    setTimeout(() => client.abort(), 20);
    await expect(embedding).rejects.toMatchObject({ code: 'ABORTED' });
    const { running, waiting, blocks } = engine.stats();
    expect({ running, waiting, used: blocks.used }).toEqual({ running: 0, waiting: 0, used: 0 });
    expect(await engine.embed(['and it goes on'])).toHaveLength(1);
  });

  const golden = JSON.parse(readFileSync(new URL('golden/embeddings.json', import.meta.url), 'utf8')) as {
    ids: number[][];
    models: Record<string, { mean: number[]; last: number[]; last8: number[] }[]>;
  };
  for (const [model, expected] of Object.entries(golden.models)) {
    testOnBackendsWithData(
      `models/hf-archs/${model}`,
      `have the values of transformers: ${model}`,
      async ({ name }, path) => {
        const backend = name as BackendOfEngine;
        await using engine = await Engine.load({ model: path, backend, kvDtype: 'f32' });
        const inputs = golden.ids;
        const mean = await engine.embed({ inputs });
        const last = await engine.embed({ inputs, pooling: 'last' });
        const last8 = await engine.embed({ inputs, pooling: 'last', dimensions: 8 });
        for (const [i, values] of expected.entries()) {
          expect(maxAbsDiff(mean.vectors[i]!, values.mean)).toBeLessThan(1e-5);
          expect(maxAbsDiff(last.vectors[i]!, values.last)).toBeLessThan(1e-5);
          expect(maxAbsDiff(last8.vectors[i]!, values.last8)).toBeLessThan(1e-5);
        }
      },
    );
  }
});
