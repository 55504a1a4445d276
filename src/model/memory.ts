import { dtypeInMemory, type SessionLimits } from '../backend/backend.js';
import { kvBlockBytes, kvRowBytes } from '../backend/kv-dtype.js';
import type { Plan } from '../backend/plan.js';
import { type DType, dtypes, matrixBytes } from '../tensor/dtype.js';
import { LINE, PANEL_ROWS } from '../tensor/packed.js';
import type { LoadedModel } from './load.js';

/** What a session of the native backend needs, in bytes, besides the scratch of its threads (below 1 MB each). */
export interface MemoryPlan {
  /** Matrices that stay where they lie in the mapped files: page cache, shared between processes. */
  readonly mappedWeights: number;
  /** Vectors as float32, and matrices that are stored transposed, quantised at load, or re-encoded for the kernels. */
  readonly copiedWeights: number;
  readonly kvBytesPerToken: number;
  readonly kvCache: number;
  /** Buffers of a step, its activations as 8-bit integers, and what threads that share a long context exchange. */
  readonly activations: number;
  /** Angles of rotary embeddings, for every position of the context. */
  readonly ropeTables: number;
  readonly total: number;
}

/** Every array starts on a cache line. */
const ALIGNMENT = 64;
const FLOAT_BYTES = 4;
/** Positions per chunk of attention (kAttentionChunk in kernels.h), and floats per vector. */
const ATTENTION_CHUNK = 256;
const VECTOR = 16;
/** Values per sum of 8-bit activations (kSumGroup in kernels.h). */
const SUM_GROUP = 16;
/** Rows of 8-bit activations that lie together (kActivationTile in kernels.h). */
const ACTIVATION_TILE = 8;
/** Areas for codes of one block size, at most: one is read while the next is written. */
const CODES_AREAS = 2;

/** Exact sizes, from the plan alone: nothing has to be loaded for them. */
export function memoryPlan(model: LoadedModel, limits: SessionLimits): MemoryPlan {
  const { plan } = model;
  const weights = weightBytes(model);
  const { blockSize, kvDtype, maxTokens, maxRows, numBlocks, contextSize } = limits;
  const kvBytesPerToken = sum(
    plan.kvLayers.map(({ numKvHeads, headDim }) => 2 * numKvHeads * kvRowBytes(kvDtype, headDim)),
  );
  // Keys and values of a layer are an array each.
  const kvCache = sum(
    plan.kvLayers.map(
      ({ numKvHeads, headDim }) => 2 * aligned(numBlocks * numKvHeads * kvBlockBytes(kvDtype, headDim, blockSize)),
    ),
  );
  const { arenaWidths } = plan;
  const arenas =
    aligned(maxTokens * arenaWidths.tokens * FLOAT_BYTES) + aligned(maxRows * arenaWidths.logits * FLOAT_BYTES);
  const activations = arenas + codesBytes(model, limits) + exchangeBytes(model, limits);
  // cos and sin.
  const ropeTables = sum(
    plan.ropeTables.map((table) => 2 * aligned(contextSize * table.inverseFrequencies.length * FLOAT_BYTES)),
  );
  const total = weights.mapped + weights.copied + kvCache + activations + ropeTables;
  return {
    mappedWeights: weights.mapped,
    copiedWeights: weights.copied,
    kvBytesPerToken,
    kvCache,
    activations,
    ropeTables,
    total,
  };
}

function weightBytes({ plan, weights }: LoadedModel): { mapped: number; copied: number } {
  const meetsIntegers = new Set<number>();
  for (const op of plan.ops) if (op.op === 'linear' && op.activations === 'q8') meetsIntegers.add(op.weight.id);
  let mapped = 0;
  let copied = 0;
  for (const [id, { dtype, rows, columns, transposedStride, quantize }] of weights.entries.entries()) {
    const stored = matrixBytes(dtype, rows, columns)!;
    const repacked = meetsIntegers.has(id) ? repackedBytes(dtype, rows, columns) : null;
    if (quantize !== undefined) copied += matrixBytes(quantize, rows, columns)!;
    else if (rows === 1) copied += aligned(columns * FLOAT_BYTES);
    else if (transposedStride > 0) copied += aligned(stored);
    else if (repacked !== null) copied += repacked;
    else mapped += stored;
  }
  return { mapped, copied };
}

/**
 * Types of GGUF that are re-encoded, exactly, into panels of 16 rows where they meet 8-bit activations: bytes per panel
 * with rows of this many values.
 */
const repackedPanelBytes: Readonly<Partial<Record<DType, (columns: number) => number>>> = {
  q4_0: (columns) => LINE * Math.ceil(columns / 64) + (columns / 32) * 256,
  q8_0: (columns) => LINE * Math.ceil(columns / 64) + (columns / 32) * 512,
  q4_k: (columns) => (columns / 256) * 2368,
  q5_k: (columns) => (columns / 256) * 2880,
  q6_k: (columns) => (columns / 256) * 3392,
};

/** Bytes of the re-encoded matrix, or null if its type stays as it is stored, or it has too few rows. */
function repackedBytes(dtype: DType, rows: number, columns: number): number | null {
  const bytes = repackedPanelBytes[dtype];
  return bytes === undefined || rows < PANEL_ROWS ? null : Math.ceil(rows / PANEL_ROWS) * bytes(columns);
}

/** Inputs of linears as 8-bit integers: as large as the largest input of each block size. */
function codesBytes({ plan, weights }: LoadedModel, limits: SessionLimits): number {
  const valuesByBlock = new Map<number, number>();
  for (const op of plan.ops) {
    if (op.op !== 'linear' || op.activations !== 'q8') continue;
    const { blockSize } = dtypes[dtypeInMemory(weights.entries[op.weight.id]!)];
    const rows = op.x.rows === 'tokens' ? limits.maxTokens : limits.maxRows;
    const values = op.x.width * Math.ceil(rows / ACTIVATION_TILE) * ACTIVATION_TILE;
    valuesByBlock.set(blockSize, Math.max(valuesByBlock.get(blockSize) ?? 0, values));
  }
  return sum(
    [...valuesByBlock].map(
      ([blockSize, values]) =>
        CODES_AREAS *
        (aligned(values) +
          2 * aligned((values / blockSize) * FLOAT_BYTES) +
          aligned((values / SUM_GROUP) * FLOAT_BYTES)),
    ),
  );
}

/** What each chunk gives of attention of one token to the whole context (attention_exchange_floats in kernels.h). */
function exchangeBytes({ plan }: LoadedModel, { contextSize }: SessionLimits): number {
  const chunks = Math.ceil(contextSize / ATTENTION_CHUNK);
  const floats = plan.ops.map((op) => {
    if (op.op !== 'attention') return 0;
    const { headDim } = plan.kvLayers[op.layer]!;
    return chunks * (op.q.width / headDim) * (Math.ceil(headDim / VECTOR) * VECTOR + 2);
  });
  return aligned(Math.max(0, ...floats) * FLOAT_BYTES);
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Values of all weights a plan uses; tied ones count once. */
export function countParameters(plan: Plan): number {
  return sum(plan.weights.map(({ rows, columns }) => rows * columns));
}
