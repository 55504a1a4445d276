import { afterAll, describe, expect, it } from 'vitest';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { referenceBackend } from '../../src/backend/reference-session.js';
import { EngineError } from '../../src/base/errors.js';
import { packageFile } from '../../src/base/package-files.js';
import { writeWeights } from './case-builder.js';
import { samplingRecords } from './sampling-records.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

/** Null once dist/ is built. */
const notBuilt =
  packageFile('dist/backend/reference-worker.js') === null ? 'skipped: dist/ is not built, run npm run build:ts' : null;

const folder = temporaryFolder();
const model = tinyLlama('session', 'q8_0', 'q8', 'f32');
const weights = writeWeights(model, folder);
const [prefill] = schedules['in one prefill']!;

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof EngineError) return error.code;
    throw error;
  }
  return 'nothing thrown';
};

describe.skipIf(notBuilt)(`the reference in a worker thread${notBuilt ? ` (${notBuilt})` : ''}`, async () => {
  const backend = referenceBackend();
  const session = notBuilt ? null! : await backend.load(model.plan, weights, model.limits);
  afterAll(() => session?.dispose());
  const interpreter = new ReferenceInterpreter(model.plan, weights, model.limits);

  it('gives what the interpreter gives', async () => {
    const expected = interpreter.step(prefill!, { logits: true });
    const actual = await session.step(prefill!, { logits: true });
    expect(actual).toEqual(expected);
    expect(await session.read(model.plan.logits)).toEqual(interpreter.read(model.plan.logits));
  });

  it('copies the batch before step() returns, and runs steps in order', async () => {
    const chunks = schedules['in chunks, in scattered blocks']!;
    const expected = chunks.map((batch) => interpreter.step(batch, { logits: true }).logits!);
    const promises = chunks.map((batch) => {
      const copy = { ...batch, tokenIds: batch.tokenIds.slice() };
      const promise = session.step(copy, { logits: true });
      copy.tokenIds.fill(0);
      return promise;
    });
    const results = await Promise.all(promises);
    results.forEach(({ logits }, i) => {
      expect(logits).toEqual(expected[i]);
    });
  });

  it('does not block the event loop during a step', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    await Promise.all(Array.from({ length: 20 }, () => session.step(prefill!)));
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(0);
  });

  it('samples logits of the caller, rows chosen by the records', () => {
    const { width } = model.plan.logits;
    const logits = new Float32Array(2 * width);
    logits[width + 7] = 5;
    logits[3] = 5;
    const sampling = samplingRecords({ row: 1, temperature: 0 }, { row: 0, temperature: 0 });
    expect([...session.sample(logits, Int32Array.of(0, 0), { sampling }).tokens]).toEqual([7, 3]);
  });

  it('brings errors across with code and parameters, and goes on', async () => {
    const bad = { ...prefill!, tokenIds: prefill!.tokenIds.map(() => 5000) };
    expect(await codeOf(session.step(bad))).toBe('INTERNAL');
    expect((await session.step(prefill!)).tokens.length).toBe(29);
    const elsewhere = { ...weights, entries: weights.entries.map((entry) => ({ ...entry, file: '/nowhere.bin' })) };
    const failure = backend.load(model.plan, elsewhere, model.limits);
    await expect(failure).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
      parameters: { path: '/nowhere.bin' },
      status: 404,
    });
  });

  it('stops loading when aborted, before and during', async () => {
    expect(await codeOf(backend.load(model.plan, weights, model.limits, AbortSignal.abort()))).toBe('ABORTED');
    const controller = new AbortController();
    const loading = backend.load(model.plan, weights, model.limits, controller.signal);
    controller.abort();
    expect(await codeOf(loading)).toBe('ABORTED');
  });

  it('finishes the step in flight on dispose, and refuses everything after', async () => {
    const other = await backend.load(model.plan, weights, model.limits);
    const step = other.step(prefill!);
    const disposed = other.dispose();
    expect((await step).tokens.length).toBe(29);
    await disposed;
    await other.dispose();
    expect(await codeOf(other.step(prefill!))).toBe('DISPOSED');
    expect(await codeOf(other.read(model.plan.logits))).toBe('DISPOSED');
    expect(() => other.sample(new Float32Array(0), new Int32Array(0), { sampling: new Int32Array(0) })).toThrow(
      /was disposed/,
    );
  });
});
