import { invariant } from '../base/errors.js';
import type { Batch, SessionLimits, StepResult, Want, WeightTable } from './backend.js';
import { checkBlockTables, checkSteps } from './check-batch.js';
import type { Buffer, Op, OpOf, Weight } from './op.js';
import { headIndex, hiddenOf, type Plan } from './plan.js';
import { attention, type ReferenceKv, writeKv } from './reference-attention.js';
import { ReferenceBlocks } from './reference-blocks.js';
import { add, gelu, layerNorm, type RopeAngles, rmsNorm, rope, siluMul } from './reference-elementwise.js';
import { linearFloat, linearInteger } from './reference-linear.js';
import type { ReferenceMatrix } from './reference-matrix.js';
import { createQuantisedRows, quantiseRows } from './reference-q8.js';
import { sampleRows } from './reference-sampling.js';
import { allocate, loadMatrices } from './reference-weights.js';
import { readRecord, SAMPLING_WORDS } from './sampling.js';

export interface ReferenceOptions {
  /**
   * Models whose decoded matrices take at most this many bytes are decoded at load; larger ones stay as they are stored,
   * and every step decodes every row once, for all of its tokens. Default 512 MiB.
   */
  readonly decodeLimit?: number;
}

const DEFAULT_DECODE_LIMIT = 512 * 2 ** 20;

/**
 * Runs a plan in plain TypeScript, and so defines what each op means: sums are float64 in one fixed order, buffers
 * float32. A row's results do not depend on what else is in the batch.
 *
 * The constructor throws what reading weights throws (see `loadMatrices`), and OUT_OF_MEMORY.
 */
export class ReferenceInterpreter {
  readonly #plan: Plan;
  readonly #limits: SessionLimits;
  readonly #weights: readonly ReferenceMatrix[];
  /** Of each buffer, at full capacity. */
  readonly #buffers: readonly Float32Array[];
  readonly #kv: readonly ReferenceKv[];
  readonly blocks: ReferenceBlocks;
  /** Rows of the last step. */
  #numRows = { tokens: 0, logits: 0 };

  constructor(plan: Plan, weights: WeightTable, limits: SessionLimits, options: ReferenceOptions = {}) {
    this.#plan = plan;
    this.#limits = limits;
    this.#weights = loadMatrices(plan, weights, options.decodeLimit ?? DEFAULT_DECODE_LIMIT);
    const capacity = { tokens: limits.maxTokens, logits: limits.maxRows };
    const arenas = {
      tokens: allocateFloats(plan.arenaWidths.tokens * capacity.tokens, 'activations'),
      logits: allocateFloats(plan.arenaWidths.logits * capacity.logits, 'logits'),
    };
    this.#buffers = plan.buffers.map(({ rows, offset, width }) =>
      arenas[rows].subarray(offset * capacity[rows], (offset + width) * capacity[rows]),
    );
    this.#kv = plan.kvLayers.map(({ numKvHeads, headDim }) => {
      const floats = limits.numBlocks * limits.blockSize * numKvHeads * headDim;
      return {
        numKvHeads,
        headDim,
        keys: allocateFloats(floats, 'the KV cache'),
        values: allocateFloats(floats, 'the KV cache'),
      };
    });
    this.blocks = new ReferenceBlocks(this.#kv, limits);
  }

  /** One forward pass over one batch, sampling included. */
  step(batch: Batch, want: Want = {}): StepResult {
    const numTokens = batch.tokenIds.length;
    const numRows = batch.sampling.length / SAMPLING_WORDS;
    invariant(numTokens <= this.#limits.maxTokens, `a step of ${numTokens} tokens`);
    invariant(numRows <= this.#limits.maxRows, `a step of ${numRows} logits rows`);
    checkSteps(batch, 1);
    checkBlockTables(batch, this.#plan, this.#limits);
    this.#numRows = { tokens: numTokens, logits: numRows };

    const angles = this.#plan.ropeTables.map((table) => ropeAngles(table, batch.positions));
    const { ops, logits } = this.#plan;
    const withHead = !want.hidden || want.logits || needsLogits(batch);
    for (const op of withHead ? ops : ops.slice(0, headIndex(this.#plan))) this.#run(op, batch, angles);

    const values = this.#buffers[logits.id]!.subarray(0, numRows * logits.width);
    const result = sampleRows(batch, batch.positions, logits.width, (row) =>
      values.subarray(row * logits.width, (row + 1) * logits.width),
    );
    return {
      ...result,
      ...(want.logits && { logits: values.slice() }),
      ...(want.hidden && { hidden: this.read(hiddenOf(this.#plan)) }),
    };
  }

  /** A copy of a buffer as the last step left it, [rows of that step, width]. */
  read(buffer: Buffer): Float32Array {
    return this.#buffers[buffer.id]!.slice(0, this.#count(buffer));
  }

  #run(op: Op, batch: Batch, angles: readonly RopeAngles[]): void {
    const at = (buffer: Buffer): Float32Array => this.#buffers[buffer.id]!;
    const vector = (weight: Weight): Float32Array => this.#weights[weight.id]!.floatRows(0, 1);
    const optional = (weight: Weight | null): Float32Array | null => weight && vector(weight);
    const { blockSize, kvDtype } = this.#limits;
    switch (op.op) {
      case 'embed':
        this.#rowsOf(op.table, batch.tokenIds, (row, t) => at(op.out).set(row, t * op.out.width));
        break;
      case 'addPositions':
        this.#rowsOf(op.table, batch.positions, (row, t) => {
          add(at(op.x).subarray(t * op.x.width), row, op.x.width);
        });
        break;
      case 'rmsNorm':
        rmsNorm(at(op.out), at(op.x), this.#count(op.x), vector(op.weight), op.eps);
        break;
      case 'layerNorm':
        layerNorm(at(op.out), at(op.x), this.#count(op.x), vector(op.weight), optional(op.bias), op.eps);
        break;
      case 'linear':
        this.#linear(op, optional(op.bias));
        break;
      case 'rope':
        rope(at(op.x), this.#numRows[op.x.rows], op.x.width, op.headDim, angles[op.table]!, op.interleaved === 1);
        break;
      case 'writeKv':
        writeKv(this.#kv[op.layer]!, at(op.k), at(op.v), batch.slotMapping, kvDtype);
        break;
      case 'attention':
        attention(at(op.out), at(op.q), op.q.width, this.#kv[op.layer]!, batch, blockSize, op);
        break;
      case 'siluMul':
        siluMul(at(op.out), at(op.gate), at(op.up), this.#count(op.out));
        break;
      case 'gelu':
        gelu(at(op.out), at(op.x), this.#count(op.out), op.approximate === 1);
        break;
      case 'add':
        add(at(op.x), at(op.y), this.#count(op.x));
        break;
      case 'selectRows':
        for (let r = 0; r < this.#numRows.logits; r++) {
          const { row } = readRecord(batch.sampling, r);
          at(op.out).set(at(op.x).subarray(row * op.x.width, (row + 1) * op.x.width), r * op.x.width);
        }
        break;
    }
  }

  #linear(op: OpOf<'linear'>, bias: Float32Array | null): void {
    const weight = this.#weights[op.weight.id]!;
    const out = this.#buffers[op.out.id]!;
    const x = this.#buffers[op.x.id]!;
    const numRows = this.#numRows[op.x.rows];
    if (op.activations === 'f32') {
      linearFloat(out, x, numRows, weight, bias);
    } else {
      const quantised = createQuantisedRows(numRows, weight.columns, weight.blockSize);
      quantiseRows(x, numRows * weight.columns, weight.blockSize, quantised);
      linearInteger(out, quantised, numRows, weight, bias);
    }
  }

  /** Calls `use` with row indices[t] of a table, for every t. */
  #rowsOf(table: Weight, indices: Int32Array, use: (row: Float32Array, t: number) => void): void {
    const matrix = this.#weights[table.id]!;
    indices.forEach((index, t) => {
      invariant(index >= 0 && index < matrix.rows, `${table.name} has no row ${index}`);
      use(matrix.floatRows(index, 1).subarray(0, matrix.columns), t);
    });
  }

  /** Values of a buffer in this step. */
  #count(buffer: Buffer): number {
    return this.#numRows[buffer.rows] * buffer.width;
  }
}

/** Whether any row is sampled, or asks for log-probabilities. */
function needsLogits({ sampling }: Batch): boolean {
  const numRows = sampling.length / SAMPLING_WORDS;
  return Array.from({ length: numRows }).some((_, row) => readRecord(sampling, row).flags !== 0);
}

function allocateFloats(length: number, what: string): Float32Array {
  return new Float32Array(allocate(length * 4, what).buffer);
}

function ropeAngles(table: Plan['ropeTables'][number], positions: Int32Array): RopeAngles {
  const { inverseFrequencies, magnitude } = table;
  const numPairs = inverseFrequencies.length;
  const angle = (i: number): number => positions[Math.floor(i / numPairs)]! * inverseFrequencies[i % numPairs]!;
  const length = positions.length * numPairs;
  return {
    numPairs,
    cos: Float64Array.from({ length }, (_, i) => Math.cos(angle(i)) * magnitude),
    sin: Float64Array.from({ length }, (_, i) => Math.sin(angle(i)) * magnitude),
  };
}
