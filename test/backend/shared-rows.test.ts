import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Session } from '../../src/backend/backend.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { describeOnBackends } from './both-backends.js';
import { writeWeights } from './case-builder.js';
import { csr, type RecordOptions, samplingRecords } from './sampling-records.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();
const model = tinyLlama('shared rows', 'q8_0', 'q8', 'f16');
const weights = writeWeights(model, folder);
const [prefill] = schedules['in one prefill']!;
const vocabSize = model.plan.logits.width;

describeOnBackends('several records of one token row', (load) => {
  let session: Session;
  beforeAll(async () => {
    session = await load(model.plan, weights, model.limits);
  });
  afterAll(() => session.dispose());

  const flags = SAMPLE | LOGPROBS;
  // Of very different logits, so that choices differ at this temperature.
  const records: RecordOptions[] = [2, 28, 28, 28, 28, 28, 28, 28].map((row, i) => ({
    row,
    choice: Math.max(0, i - 1),
    seedLow: 7,
    flags,
    temperature: 20,
    numTop: i % 3,
  }));
  const bias = records.map((_, i) => (i === 5 ? [[3, 1e6] as const] : []));

  it('give n answers: each what it gives alone', async () => {
    const batch = { ...prefill!, sampling: samplingRecords(...records), bias: csr(...bias) };
    const together = await session.step(batch, { logits: true, hidden: true });
    const hiddenSize = together.hidden!.length / records.length;
    for (const [i, record] of records.entries()) {
      const alone = await session.step(
        { ...prefill!, sampling: samplingRecords(record), bias: csr(bias[i]!) },
        { logits: true, hidden: true },
      );
      expect(together.tokens[i]).toBe(alone.tokens[0]);
      expect(together.logprobs[i]).toBe(alone.logprobs[0]);
      expect(together.topIds.subarray(2 * i, 2 * i + (record.numTop ?? 0))).toEqual(alone.topIds);
      expect(together.logits!.subarray(i * vocabSize, (i + 1) * vocabSize)).toEqual(alone.logits);
      expect(together.hidden!.subarray(i * hiddenSize, (i + 1) * hiddenSize)).toEqual(alone.hidden);
    }
    expect(together.tokens[5]).toBe(3);
    expect(new Set(together.tokens.subarray(1)).size).toBeGreaterThan(3);
  });

  it('may be as many as there is room for', async () => {
    const { maxRows } = model.limits;
    const rows = Array.from({ length: maxRows }, () => ({ row: 11, temperature: 0 }));
    const { tokens } = await session.step({ ...prefill!, sampling: samplingRecords(...rows) });
    expect(new Set(tokens).size).toBe(1);
    const tooMany = { ...prefill!, sampling: samplingRecords(...rows, rows[0]!) };
    await expect(session.step(tooMany)).rejects.toMatchObject({ code: 'INTERNAL' });
  });
});
