import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Batch, SessionLimits, WeightSource, WeightTable } from '../../src/backend/backend.js';
import type { Buffer, Weight } from '../../src/backend/op.js';
import { type Plan, PlanBuilder } from '../../src/backend/plan.js';
import { SAMPLING_WORDS, samplingIndex } from '../../src/backend/sampling.js';
import type { DType } from '../../src/tensor/dtype.js';
import { seededNormal } from '../tensor/random.js';
import { randomMatrix } from '../tensor/random-blocks.js';

/** A tiny plan with its weights and the steps to run; data only, so that any backend can run it. */
export interface OpCase {
  readonly name: string;
  readonly plan: Plan;
  readonly weights: readonly StoredWeight[];
  readonly limits: SessionLimits;
  /** Run in this order in one session. */
  readonly steps: readonly Batch[];
  /** Read after every step. */
  readonly outputs: readonly Buffer[];
  /** Most a float backend may differ, relative to the largest finite magnitude of the output. */
  readonly tolerance: number;
}

export interface StoredWeight extends Omit<WeightSource, 'file' | 'offset'> {
  readonly bytes: Uint8Array;
}

/** Bytes; what own types need, twice GGUF's default. */
const FILE_ALIGNMENT = 64;

export const defaultLimits: SessionLimits = {
  maxTokens: 64,
  maxRows: 64,
  maxSequences: 8,
  contextSize: 1024,
  blockSize: 16,
  numBlocks: 64,
  kvDtype: 'f32',
};

/** Records a case: a plan whose weights come with their bytes, and whose inputs are rows of random tables. */
export class CaseBuilder {
  readonly plan = new PlanBuilder();
  readonly #weights: StoredWeight[] = [];
  #seed: number;

  constructor(seed: number) {
    this.#seed = seed * 1000;
  }

  /** A random matrix, stored as `dtype`. */
  matrix(dtype: DType, rows: number, columns: number): Weight {
    const bytes = randomMatrix(dtype, rows, columns, this.#seed);
    this.#seed += rows;
    return this.stored({ dtype, rows, columns, transposedStride: 0, bytes });
  }

  /** A float32 matrix with these values. */
  values(rows: number, columns: number, values: Float32Array): Weight {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return this.stored({ dtype: 'f32', rows, columns, transposedStride: 0, bytes });
  }

  /** A float32 matrix of standard normal values. */
  normal(rows: number, columns: number): Weight {
    const normal = seededNormal(this.#seed++);
    return this.values(
      rows,
      columns,
      Float32Array.from({ length: rows * columns }, () => normal()),
    );
  }

  stored(weight: StoredWeight): Weight {
    this.#weights.push(weight);
    return this.plan.weight(`weight-${this.#weights.length}`, weight.rows, weight.columns);
  }

  /** A [numTokens, width] buffer: row tokenIds[t] of a table of normal values. */
  input(tableRows: number, width: number): Buffer {
    return this.plan.embed(this.normal(tableRows, width));
  }

  /** Ends the plan in the rows of `result` the batches ask for. All buffers stay readable. */
  finish(
    name: string,
    result: Buffer,
    options: {
      readonly steps: readonly Batch[];
      readonly tolerance: number;
      readonly limits?: Partial<SessionLimits>;
      readonly outputs?: readonly Buffer[];
    },
  ): OpCase {
    const logits = result.rows === 'logits' ? result : this.plan.selectRows(result);
    return {
      name,
      plan: this.plan.finish(logits, { reuse: false }),
      weights: this.#weights,
      limits: { ...defaultLimits, ...options.limits },
      steps: options.steps,
      outputs: options.outputs ?? [result, logits],
      tolerance: options.tolerance,
    };
  }
}

/** Writes a case's weights to one file in `directory` (made if absent) and returns their table. */
export function writeWeights(opCase: Pick<OpCase, 'name' | 'weights'>, directory: string): WeightTable {
  mkdirSync(directory, { recursive: true });
  const file = join(directory, `${opCase.name.replace(/[^a-z0-9_]+/gi, '-')}.bin`);
  const entries: WeightSource[] = [];
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const { bytes, ...shape } of opCase.weights) {
    entries.push({ ...shape, file, offset });
    const padding = -bytes.length & (FILE_ALIGNMENT - 1);
    parts.push(bytes, new Uint8Array(padding));
    offset += bytes.length + padding;
  }
  writeFileSync(file, Buffer.concat(parts));
  const { size, mtimeMs } = statSync(file);
  return { entries, files: new Map([[file, { size, mtimeMs }]]) };
}

/** One sequence's part of a step: `count` tokens from position `start` on, in these blocks. */
export interface BatchPart {
  readonly start: number;
  readonly count: number;
  readonly blocks: readonly number[];
  /** Of the tokens; by default positions are ids. */
  readonly tokenIds?: readonly number[];
  /** Tokens of the part, counted from its first, whose logits are wanted; by default all of them. */
  readonly wanted?: readonly number[];
}

/** Lays parts out as a batch. Sampling records ask for logits only. */
export function batchOf(parts: readonly BatchPart[], blockSize = defaultLimits.blockSize): Batch {
  const maxBlocks = Math.max(1, ...parts.map((part) => part.blocks.length));
  const blockTables = new Int32Array(parts.length * maxBlocks);
  const queryStart = [0];
  const tokenIds: number[] = [];
  const positions: number[] = [];
  const slots: number[] = [];
  const rows: number[] = [];
  parts.forEach((part, s) => {
    blockTables.set(part.blocks, s * maxBlocks);
    for (let i = 0; i < part.count; i++) {
      const position = part.start + i;
      if (part.wanted?.includes(i) ?? true) rows.push(positions.length);
      tokenIds.push(part.tokenIds ? part.tokenIds[i]! : position);
      positions.push(position);
      slots.push(part.blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize));
    }
    queryStart.push(positions.length);
  });
  const sampling = new Int32Array(rows.length * SAMPLING_WORDS);
  rows.forEach((row, i) => {
    sampling[i * SAMPLING_WORDS + samplingIndex.row] = row;
  });
  return {
    tokenIds: Int32Array.from(tokenIds),
    positions: Int32Array.from(positions),
    slotMapping: Int32Array.from(slots),
    queryStart: Int32Array.from(queryStart),
    contextLens: Int32Array.from(parts, (part) => part.start + part.count),
    blockTables,
    sampling,
  };
}

/** One sequence of `count` tokens from position 0 on, with ids 0, 1, … */
export function simpleBatch(count: number): Batch {
  const blocks = Array.from({ length: Math.ceil(count / defaultLimits.blockSize) }, (_, i) => i);
  return batchOf([{ start: 0, count, blocks }]);
}
