import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SamplingInputs, Session, StepResult } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { sampleRows } from '../../src/backend/reference-sampling.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { seededNormal, seededRandom } from '../tensor/random.js';
import { batchOf, CaseBuilder, type OpCase, writeWeights } from './case-builder.js';
import { expectClose } from './compare.js';
import { isas, notBuilt } from './native-availability.js';
import { csr, maskOf, type RecordOptions, samplingRecords } from './sampling-records.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

/** A plan whose logits are rows of a table. */
function tableOfLogits(vocabSize: number): OpCase {
  const builder = new CaseBuilder(vocabSize);
  return builder.finish(`logits ${vocabSize}`, builder.input(40, vocabSize), { steps: [], tolerance: 0 });
}

function expectSame(actual: StepResult, expected: StepResult): void {
  expect(actual.tokens).toEqual(expected.tokens);
  expect(actual.topIds).toEqual(expected.topIds);
  expectClose(actual.logprobs, expected.logprobs, 1e-6, 'log-probabilities');
  expectClose(actual.topLogprobs, expected.topLogprobs, 1e-6, 'log-probabilities of alternatives');
}

const random = seededRandom(4);
const pick = <T>(...values: readonly T[]): T => values[Math.floor(random() * values.length)]!;

function randomOptions(row: number): RecordOptions {
  return {
    row,
    choice: pick(0, 3),
    seedLow: Math.floor(random() * 2 ** 31),
    seedHigh: pick(0, 77),
    flags: pick(SAMPLE, SAMPLE | LOGPROBS, LOGPROBS, 0),
    temperature: pick(0, 0.1, 0.8, 1, 3),
    topK: pick(0, 0, 1, 5, 40),
    topP: pick(1, 1, 0.3, 0.95),
    minP: pick(0, 0, 0.05, 0.5),
    typicalP: pick(1, 1, 0.7),
    repetitionPenalty: pick(1, 1.3),
    presencePenalty: pick(0, 0.5),
    frequencyPenalty: pick(0, -0.2),
    promptLength: pick(0, 2, 50),
    numTop: pick(0, 4, 20),
  };
}

function randomInputs(vocabSize: number, numRows: number, positions: number): SamplingInputs {
  const id = (): number => Math.floor(random() * vocabSize);
  const ids = (count: number): number[] => Array.from({ length: count }, id);
  const rows = Array.from({ length: numRows }, (_, i) => i);
  const mask = new Int32Array(rows.flatMap(() => [...maskOf(vocabSize, ids(vocabSize * 2))]));
  return {
    sampling: samplingRecords(...rows.map(() => randomOptions(Math.floor(random() * positions)))),
    ...pick({}, { history: csr(...rows.map(() => ids(pick(0, 3, 30)))) }),
    ...pick({}, { bias: csr(...rows.map(() => ids(4).map((at) => [at, pick(-3, 5, -Infinity)] as const))) }),
    ...pick({}, { mask }),
  };
}

describe.skipIf(notBuilt).each(isas)(`native sampling, %s${notBuilt ?? ''}`, (isa) => {
  describe.each([1, 5, 61, 32_003])('of %i tokens', (vocabSize) => {
    let session: Session;
    beforeAll(async () => {
      const model = tableOfLogits(vocabSize);
      const backend = nativeCpuBackend({ threads: 2, isa });
      session = await backend.load(model.plan, writeWeights(model, folder), model.limits);
    });
    afterAll(() => session.dispose());
    const normal = seededNormal(vocabSize);

    it('chooses what the reference chooses', () => {
      for (let trial = 0; trial < (vocabSize > 1000 ? 4 : 40); trial++) {
        const numRows = 6;
        const spread = pick(0, 1, 10);
        const logits = Float32Array.from({ length: numRows * vocabSize }, () => normal() * spread);
        if (trial % 5 === 0) logits[Math.floor(random() * logits.length)] = pick(Number.NaN, Infinity, -Infinity, 1e38);
        const positions = Int32Array.from({ length: numRows }, () => Math.floor(random() * 1000));
        const inputs = randomInputs(vocabSize, 8, numRows);
        const expected = sampleRows(inputs, positions, vocabSize, (_, row) =>
          logits.subarray(row * vocabSize, (row + 1) * vocabSize),
        );
        expectSame(session.sample(logits, positions, inputs), expected);
      }
    });

    it('does the same at the end of a step', async () => {
      const count = 9;
      const batch = batchOf([{ start: 100, count, blocks: [0, 1, 2, 3, 4, 5, 6], tokenIds: [...Array(count).keys()] }]);
      const inputs = randomInputs(vocabSize, 7, count);
      const { logits, ...result } = await session.step({ ...batch, ...inputs }, { logits: true });
      const expected = sampleRows(inputs, batch.positions, vocabSize, (index) =>
        logits!.subarray(index * vocabSize, (index + 1) * vocabSize),
      );
      expectSame(result, expected);
    });
  });
});
