import type { Csr } from '../../src/backend/backend.js';
import {
  SAMPLE,
  SAMPLING_WORDS,
  type SamplingField,
  samplingFields,
  samplingIndex,
} from '../../src/backend/sampling.js';

/** Everything off: plain sampling at temperature 1. */
const defaults: Readonly<Record<SamplingField, number>> = {
  row: 0,
  choice: 0,
  seedLow: 0,
  seedHigh: 0,
  flags: SAMPLE,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  promptLength: 0,
  numTop: 0,
};

export type RecordOptions = Partial<Record<SamplingField, number>>;

/** Sampling records with these fields, everything else off. */
export function samplingRecords(...rows: readonly RecordOptions[]): Int32Array {
  const words = new Int32Array(rows.length * SAMPLING_WORDS);
  const floats = new Float32Array(words.buffer);
  rows.forEach((row, i) => {
    for (const [name, value] of Object.entries({ ...defaults, ...row }) as [SamplingField, number][]) {
      (samplingFields[name] === 'f32' ? floats : words)[i * SAMPLING_WORDS + samplingIndex[name]] = value;
    }
  });
  return words;
}

/** Token ids per row; with values where the lists are pairs. */
export function csr(...rows: readonly (readonly (number | readonly [number, number])[])[]): Csr {
  const offsets = new Int32Array(rows.length + 1);
  rows.forEach((row, i) => {
    offsets[i + 1] = offsets[i]! + row.length;
  });
  const entries = rows.flat().map((entry) => (typeof entry === 'number' ? ([entry, 0] as const) : entry));
  return {
    offsets,
    ids: Int32Array.from(entries, ([id]) => id),
    values: Float32Array.from(entries, ([, value]) => value),
  };
}

/** Mask words of one row that allow these tokens only. */
export function maskOf(vocabSize: number, allowed: readonly number[]): Int32Array {
  const words = new Int32Array(Math.ceil(vocabSize / 32));
  for (const id of allowed) words[id >> 5]! |= 1 << (id & 31);
  return words;
}
