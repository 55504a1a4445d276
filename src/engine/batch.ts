import type { Batch, Csr } from '../backend/backend.js';
import { SAMPLING_WORDS, samplingIndex } from '../backend/sampling.js';
import { usesHistory } from './sampler.js';
import type { ScheduledPart } from './scheduler.js';
import type { Sequence } from './sequence.js';

/** A step's inputs, and where in its results each part's rows begin. */
export interface PlannedStep {
  readonly batch: Batch;
  readonly rowStart: Int32Array; // [numParts + 1], in each step of the call
}

/**
 * Lays the parts of a step, or of the first of several, out as ragged arrays. A part that completes a prompt with forks
 * has a row for each answer.
 */
export function buildBatch(parts: readonly ScheduledPart[], blockSize: number, numSteps = 1): PlannedStep {
  let numTokens = 0;
  let numRows = 0;
  let maxBlocks = 0;
  const rowStart = new Int32Array(parts.length + 1);
  parts.forEach((part, s) => {
    numTokens += part.numTokens;
    numRows += part.sequence.numRows(part.numTokens);
    rowStart[s + 1] = numRows;
    maxBlocks = Math.max(maxBlocks, part.sequence.numBlocks);
  });
  const tokenIds = new Int32Array(numTokens);
  const positions = new Int32Array(numTokens);
  const slotMapping = new Int32Array(numTokens);
  const queryStart = new Int32Array(parts.length + 1);
  const contextLens = new Int32Array(parts.length);
  const blockTables = new Int32Array(parts.length * maxBlocks);
  const sampling = new Int32Array(numRows * SAMPLING_WORDS);
  const sampled: Sequence[] = []; // [numRows] whose parameters a row has

  let token = 0;
  const addRow = (sequence: Sequence, row: number): void => {
    const start = sampled.push(sequence) * SAMPLING_WORDS - SAMPLING_WORDS;
    sampling.set(sequence.samplingRecord, start);
    sampling[start + samplingIndex.row] = row;
  };
  parts.forEach(({ sequence, numTokens: count }, s) => {
    const { blocks, everyRow } = sequence;
    const start = sequence.numComputedTokens;
    const end = start + count;
    tokenIds.set(sequence.tokenIds.subarray(start, end), token);
    for (let position = start; position < end; position++, token++) {
      positions[token] = position;
      slotMapping[token] = blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      if (everyRow) addRow(sequence, token);
    }
    if (!everyRow && end === sequence.numTokens) {
      addRow(sequence, token - 1);
      for (const fork of sequence.forks) addRow(fork, token - 1);
    }
    queryStart[s + 1] = token;
    contextLens[s] = end;
    blockTables.set(blocks, s * maxBlocks);
  });

  const history = historyOf(sampled);
  const bias = biasOf(sampled);
  const batch = {
    tokenIds,
    positions,
    slotMapping,
    queryStart,
    contextLens,
    blockTables,
    sampling,
    ...(numSteps > 1 && { numSteps }),
    ...(history && { history }),
    ...(bias && { bias }),
  };
  return { batch, rowStart };
}

const NO_IDS = new Int32Array(0);

function historyOf(rows: readonly Sequence[]): Csr | null {
  const needsHistory = ({ sampling }: Sequence) => sampling !== null && usesHistory(sampling);
  if (!rows.some(needsHistory)) return null;
  const lists = rows.map((sequence) => (needsHistory(sequence) ? sequence.tokenIds : NO_IDS));
  return { offsets: offsetsOf(lists), ids: concatenate(lists) };
}

function biasOf(rows: readonly Sequence[]): Csr | null {
  if (rows.every(({ sampling }) => (sampling?.bias ?? null) === null)) return null;
  const biases = rows.map(({ sampling }) => sampling?.bias ?? null);
  const ids = biases.map((bias) => bias?.ids ?? NO_IDS);
  const values = Float32Array.from(biases.flatMap((bias) => [...(bias?.values ?? [])]));
  return { offsets: offsetsOf(ids), ids: concatenate(ids), values };
}

function offsetsOf(lists: readonly Int32Array[]): Int32Array {
  const offsets = new Int32Array(lists.length + 1);
  lists.forEach((list, i) => {
    offsets[i + 1] = offsets[i]! + list.length;
  });
  return offsets;
}

function concatenate(lists: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(lists.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of lists) {
    all.set(list, at);
    at += list.length;
  }
  return all;
}
