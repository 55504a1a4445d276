import type { Batch, Csr } from '../backend/backend.js';
import { SamplingRecords, usesHistory } from './sampler.js';
import type { ScheduledPart } from './scheduler.js';
import type { Sequence } from './sequence.js';

/** One wanted row of logits and whose it is. */
export interface BatchRow {
  readonly sequence: Sequence;
  /** Position of the token the row belongs to. */
  readonly position: number;
}

/** Lays the parts of a step out as ragged arrays. Returned rows are in the order of the step's results. */
export function buildBatch(parts: readonly ScheduledPart[], blockSize: number): { batch: Batch; rows: BatchRow[] } {
  const numTokens = parts.reduce((sum, part) => sum + part.numTokens, 0);
  const maxBlocks = Math.max(...parts.map(({ sequence }) => sequence.blocks.length));
  const tokenIds = new Int32Array(numTokens);
  const positions = new Int32Array(numTokens);
  const slotMapping = new Int32Array(numTokens);
  const queryStart = new Int32Array(parts.length + 1);
  const contextLens = new Int32Array(parts.length);
  const blockTables = new Int32Array(parts.length * maxBlocks);
  const rows: BatchRow[] = [];
  const tokenRows: number[] = []; // token row of each wanted row

  let token = 0;
  parts.forEach(({ sequence, numTokens: count }, s) => {
    const start = sequence.numComputedTokens;
    const end = start + count;
    tokenIds.set(sequence.tokenIds.subarray(start, end), token);
    for (let position = start; position < end; position++, token++) {
      positions[token] = position;
      slotMapping[token] = sequence.blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      if (sequence.sampling === null || position === sequence.numTokens - 1) {
        rows.push({ sequence, position });
        tokenRows.push(token);
      }
    }
    queryStart[s + 1] = token;
    contextLens[s] = end;
    blockTables.set(sequence.blocks, s * maxBlocks);
  });

  const records = new SamplingRecords(rows.length);
  rows.forEach(({ sequence }, i) => {
    if (sequence.sampling === null) records.logitsOnly(tokenRows[i]!);
    else records.sample(tokenRows[i]!, sequence.sampling, 0, sequence.promptLength);
  });
  const history = historyOf(rows);
  const bias = biasOf(rows);
  return {
    batch: {
      tokenIds,
      positions,
      slotMapping,
      queryStart,
      contextLens,
      blockTables,
      sampling: records.words,
      ...(history && { history }),
      ...(bias && { bias }),
    },
    rows,
  };
}

function historyOf(rows: readonly BatchRow[]): Csr | null {
  const lists = rows.map(({ sequence }) =>
    sequence.sampling !== null && usesHistory(sequence.sampling) ? sequence.tokenIds : new Int32Array(0),
  );
  return lists.some((list) => list.length > 0) ? { offsets: offsetsOf(lists), ids: concatenate(lists) } : null;
}

function biasOf(rows: readonly BatchRow[]): Csr | null {
  const biases = rows.map(({ sequence }) => sequence.sampling?.bias ?? null);
  if (biases.every((bias) => bias === null)) return null;
  const ids = biases.map((bias) => bias?.ids ?? new Int32Array(0));
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
