/**
 * Layout of a sampling record: one row of `Batch.sampling`, 32-bit words, floats bit-cast. The definition of what
 * sampling computes is in reference-sampling.ts; engine/sampler.ts is the only writer of records.
 */
export const samplingFields = {
  /** Token row of the batch whose logits are meant. */
  row: 'i32',
  /** Which of a request's `n` choices; part of the noise key. */
  choice: 'i32',
  /** The 64-bit seed; the noise key's other part is (position of the sampled token, token id). */
  seedLow: 'i32',
  seedHigh: 'i32',
  /** SAMPLE | LOGPROBS */
  flags: 'i32',
  /** 0 is greedy. */
  temperature: 'f32',
  /** 0 is off. */
  topK: 'i32',
  /** 1 is off. */
  topP: 'f32',
  /** 0 is off. */
  minP: 'f32',
  /** 1 is off. */
  typicalP: 'f32',
  /** 1 is off; over all of the row's history. */
  repetitionPenalty: 'f32',
  /** 0 is off; presence and frequency count generated tokens only. */
  presencePenalty: 'f32',
  frequencyPenalty: 'f32',
  /** How many entries of the row's history belong to the prompt. */
  promptLength: 'i32',
  /** Alternatives reported beside the sampled token, with LOGPROBS. */
  numTop: 'i32',
} as const satisfies Record<string, 'i32' | 'f32'>;

export type SamplingField = keyof typeof samplingFields;

const names = Object.keys(samplingFields) as SamplingField[];

/** Words per record. */
export const SAMPLING_WORDS = names.length;

/** Index of each field within a record. */
export const samplingIndex = Object.freeze(Object.fromEntries(names.map((name, index) => [name, index]))) as Readonly<
  Record<SamplingField, number>
>;

/** One decoded row of `Batch.sampling`. */
export type SamplingRecord = Readonly<Record<SamplingField, number>>;

/** Record `index` of [numRows, SAMPLING_WORDS] words. */
export function readRecord(sampling: Int32Array, index: number): SamplingRecord {
  const words = sampling.slice(index * SAMPLING_WORDS, (index + 1) * SAMPLING_WORDS);
  const floats = new Float32Array(words.buffer);
  const entries = Object.entries(samplingFields).map(([name, kind], i) => [
    name,
    (kind === 'f32' ? floats : words)[i]!,
  ]);
  return Object.fromEntries(entries) as SamplingRecord;
}

/** Flags: choose a token for this row. */
export const SAMPLE = 1;
/** Flags: report log-probabilities. */
export const LOGPROBS = 2;

/** Most alternatives a row may ask for (OpenAI's limit). */
export const MAX_TOP_LOGPROBS = 20;
