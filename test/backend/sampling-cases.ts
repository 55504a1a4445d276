import type { SamplingInputs } from '../../src/backend/backend.js';
import { LOGPROBS, SAMPLE } from '../../src/backend/sampling.js';
import { seededNormal, seededRandom } from '../tensor/random.js';
import { csr, maskOf, type RecordOptions, samplingRecords } from './sampling-records.js';

/** Inputs of Session.sample, as data: backends must give equal tokens, ids and log-probabilities. */
export interface SamplingCase {
  readonly name: string;
  readonly vocabSize: number;
  readonly logits: Float32Array; // [numRows, vocabSize]
  readonly positions: Int32Array; // [numRows]
  readonly inputs: SamplingInputs;
}

const NUM_ROWS = 6;

/** Options that are tried on every kind of logits. */
const options: Readonly<Record<string, RecordOptions>> = {
  greedy: { temperature: 0 },
  'temperature 1': {},
  'temperature 0.3': { temperature: 0.3 },
  'temperature 30': { temperature: 30 },
  'temperature so low that quotients overflow': { temperature: 1e-39 },
  'top-k 1': { topK: 1 },
  'top-k 40': { topK: 40, temperature: 1.7 },
  'top-p 0.5': { topP: 0.5 },
  'top-p 0.999, hot': { topP: 0.999, temperature: 8 },
  'min-p': { minP: 0.05, temperature: 2 },
  'typical-p': { typicalP: 0.4 },
  'typical-p then min-p': { typicalP: 0.05, minP: 0.9, temperature: 1.5 },
  'all filters': { temperature: 0.8, topK: 50, typicalP: 0.97, topP: 0.95, minP: 0.02 },
};

/** Kinds of logits, by token id. */
const distributions: Readonly<Record<string, (seed: number) => (id: number) => number>> = {
  normal: (seed) => {
    const normal = seededNormal(seed);
    return () => 4 * normal();
  },
  'with ties': (seed) => {
    const normal = seededNormal(seed);
    return () => Math.round(normal());
  },
  'with NaN and infinities below': (seed) => {
    const normal = seededNormal(seed);
    return (id) => (id % 7 === 3 ? Number.NaN : id % 5 === 1 ? -Infinity : 3 * normal());
  },
  'all equal': () => () => -2.5,
};

function logitsOf(vocabSize: number, value: (id: number) => number): Float32Array {
  return Float32Array.from({ length: NUM_ROWS * vocabSize }, (_, i) => value(i % vocabSize));
}

/** Row r asks for logits row NUM_ROWS − 1 − r, with a seed and choice of its own. */
function records(record: RecordOptions): Int32Array {
  return samplingRecords(
    ...Array.from({ length: NUM_ROWS }, (_, r) => ({
      ...record,
      row: NUM_ROWS - 1 - r,
      seedLow: 0x9e3779b9 * (r + 1),
      seedHigh: r % 3,
      choice: r % 2,
    })),
  );
}

const positions = Int32Array.from({ length: NUM_ROWS }, (_, row) => 1000 * row + 5);

export function samplingCases(): SamplingCase[] {
  const cases: SamplingCase[] = [];
  let seed = 1;
  for (const vocabSize of [1, 37, 4099]) {
    for (const [kind, distribution] of Object.entries(distributions)) {
      const logits = logitsOf(vocabSize, distribution(seed++));
      for (const [name, record] of Object.entries(options)) {
        const sampling = records({ ...record, flags: SAMPLE | LOGPROBS, numTop: 3 });
        const inputs = { sampling };
        cases.push({ name: `${name}, ${vocabSize} logits ${kind}`, vocabSize, logits, positions, inputs });
      }
    }
  }
  return [...cases, ...modifiedCases()];
}

/** Bias, penalties and masks. */
function modifiedCases(): SamplingCase[] {
  const vocabSize = 515;
  const random = seededRandom(4);
  const anyToken = (): number => Math.floor(random() * vocabSize);
  const rows = <T>(make: (row: number) => T): T[] => Array.from({ length: NUM_ROWS }, (_, row) => make(row));
  const tokens = (count: number): number[] => Array.from({ length: count }, anyToken);

  const bias = csr(...rows((row) => tokens(row).map((id) => [id, row % 2 ? 8 * random() - 4 : -Infinity] as const)));
  const history = csr(...rows((row) => tokens(40 * row).map((id) => id % 60)));
  const masks = rows((row) => maskOf(vocabSize, row === 5 ? [] : tokens(1 + 30 * row)));
  const mask = Int32Array.from(masks.flatMap((words) => [...words]));
  const penalties = { repetitionPenalty: 1.3, presencePenalty: 0.4, frequencyPenalty: 0.15, promptLength: 17 };
  const record = { flags: SAMPLE | LOGPROBS, numTop: 5, temperature: 1.2, topP: 0.98 };

  const variants: Record<string, SamplingInputs> = {
    bias: { sampling: records(record), bias },
    mask: { sampling: records(record), mask },
    'repetition penalty': { sampling: records({ ...record, repetitionPenalty: 1.3 }), history },
    'presence and frequency': { sampling: records({ ...record, ...penalties, repetitionPenalty: 1 }), history },
    'everything at once': { sampling: records({ ...record, ...penalties }), bias, history, mask },
    'everything at once, greedy': {
      sampling: records({ ...record, ...penalties, temperature: 0 }),
      bias,
      history,
      mask,
    },
    'log-probabilities only': { sampling: records({ ...record, flags: LOGPROBS }), bias, history, mask },
  };
  const logits = logitsOf(vocabSize, distributions.normal!(99));
  return Object.entries(variants).map(([name, inputs]) => ({ name, vocabSize, logits, positions, inputs }));
}
