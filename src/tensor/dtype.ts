import { invariant } from '../base/errors.js';
import { unpackIQ4_NL, unpackQ4_0, unpackQ4_1, unpackQ5_0, unpackQ5_1, unpackQ8_0 } from './blocks-32.js';
import { dequantiseBF16, dequantiseF16, dequantiseF32 } from './blocks-float.js';
import { unpackIQ3_S, unpackIQ4_XS, unpackTQ2_0 } from './blocks-iq.js';
import { unpackQ2_K, unpackQ3_K, unpackQ4_K, unpackQ5_K, unpackQ6_K } from './blocks-k.js';
import {
  createIntegerBlock,
  type DequantiseBlock,
  dequantiseBlock,
  dequantiseIntegers,
  type IntegerBlock,
  type UnpackBlock,
} from './integer-block.js';
import {
  PACKED_BLOCK,
  PANEL_ROWS,
  type PackedDType,
  type PackedLayout,
  packedLayouts,
  panelBytes,
  unpackPackedBlock,
} from './packed.js';

/**
 * The one table of storage types. A type is one row here and its functions; nowhere else may code ask
 * "is this the four-bit type?".
 *
 * Sizes and block layouts follow the GGUF specification and ggml's block structures; those of the engine's own types
 * are in packed.ts.
 */

/** Types whose rows are stored one after another, each as a list of blocks. */
export type BlockDType =
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'q4_0'
  | 'q4_1'
  | 'q5_0'
  | 'q5_1'
  | 'q8_0'
  | 'q2_k'
  | 'q3_k'
  | 'q4_k'
  | 'q5_k'
  | 'q6_k'
  | 'iq4_nl'
  | 'iq3_s'
  | 'iq4_xs'
  | 'tq2_0';

export type DType = BlockDType | PackedDType;

export interface BlockTypeRow {
  readonly layout: 'blocks';
  /** Type id in GGUF files; also the id that crosses to native code. */
  readonly id: number;
  /** Values per block along a row; a row's length is a multiple of it. */
  readonly blockSize: number;
  /** Bytes per block. */
  readonly blockBytes: number;
  /** The floats of one block, bit for bit those of llama.cpp. */
  readonly dequantise: DequantiseBlock;
  /** The integers of one block. Only quantised types have them, and only those can meet 8-bit activations. */
  readonly unpack?: UnpackBlock;
}

export interface PackedTypeRow extends PackedLayout {
  readonly layout: 'panels';
  /** Values that share one scale of 8-bit activations. A row's length is a multiple of the group size. */
  readonly blockSize: number;
}

function float(id: number, blockBytes: number, dequantise: DequantiseBlock): BlockTypeRow {
  return { layout: 'blocks', id, blockSize: 1, blockBytes, dequantise };
}

function quantised(id: number, blockSize: number, blockBytes: number, unpack: UnpackBlock): BlockTypeRow {
  return { layout: 'blocks', id, blockSize, blockBytes, dequantise: dequantiseIntegers(unpack, blockSize), unpack };
}

function packed(dtype: PackedDType): PackedTypeRow {
  return { layout: 'panels', blockSize: PACKED_BLOCK, ...packedLayouts[dtype] };
}

export const dtypes: Readonly<Record<BlockDType, BlockTypeRow> & Record<PackedDType, PackedTypeRow>> = {
  f32: float(0, 4, dequantiseF32),
  f16: float(1, 2, dequantiseF16),
  bf16: float(30, 2, dequantiseBF16),
  q4_0: quantised(2, 32, 18, unpackQ4_0),
  q4_1: quantised(3, 32, 20, unpackQ4_1),
  q5_0: quantised(6, 32, 22, unpackQ5_0),
  q5_1: quantised(7, 32, 24, unpackQ5_1),
  q8_0: quantised(8, 32, 34, unpackQ8_0),
  q2_k: quantised(10, 256, 84, unpackQ2_K),
  q3_k: quantised(11, 256, 110, unpackQ3_K),
  q4_k: quantised(12, 256, 144, unpackQ4_K),
  q5_k: quantised(13, 256, 176, unpackQ5_K),
  q6_k: quantised(14, 256, 210, unpackQ6_K),
  iq4_nl: quantised(20, 32, 18, unpackIQ4_NL),
  iq3_s: quantised(21, 256, 110, unpackIQ3_S),
  iq4_xs: quantised(23, 256, 136, unpackIQ4_XS),
  tq2_0: quantised(35, 256, 66, unpackTQ2_0),
  int8: packed('int8'),
  int4: packed('int4'),
  int4_g64: packed('int4_g64'),
  int4_g128: packed('int4_g128'),
  int4_sym: packed('int4_sym'),
};

const byId = new Map<number, DType>((Object.keys(dtypes) as DType[]).map((name) => [dtypes[name].id, name]));

/** The storage type with this GGUF id, or null if the engine does not know it. */
export function dtypeFromId(id: number): DType | null {
  return byId.get(id) ?? null;
}

export function isPacked(dtype: DType): dtype is PackedDType {
  return dtypes[dtype].layout === 'panels';
}

/** Whether weights of this type are integers with scales, and so can meet 8-bit activations. */
export function isQuantised(dtype: DType): boolean {
  const row = dtypes[dtype];
  return row.layout === 'panels' || row.unpack !== undefined;
}

/** A row's length is a multiple of this many values. */
export function rowMultiple(dtype: DType): number {
  const row = dtypes[dtype];
  return row.layout === 'panels' ? row.groupSize : row.blockSize;
}

/** Bytes of a matrix [rows, columns], or null if blocks or groups do not divide a row. */
export function matrixBytes(dtype: DType, rows: number, columns: number): number | null {
  if (columns % rowMultiple(dtype) !== 0) return null;
  const row = dtypes[dtype];
  if (row.layout === 'blocks') return rows * ((columns / row.blockSize) * row.blockBytes);
  return Math.ceil(rows / PANEL_ROWS) * panelBytes(dtype as PackedDType, columns);
}

/** Bytes of one row of `columns` values; null if blocks do not divide it, and for types that interleave rows. */
export function rowBytes(dtype: DType, columns: number): number | null {
  return isPacked(dtype) ? null : matrixBytes(dtype, 1, columns);
}

/**
 * Bytes before row `first` of a matrix with rows of `columns` values: where the part of the matrix starts that this row
 * begins. Null if that is within a panel or a block.
 */
export function partOffset(dtype: DType, first: number, columns: number): number | null {
  return isPacked(dtype) && first % PANEL_ROWS !== 0 ? null : matrixBytes(dtype, first, columns);
}

/** One row of `columns` values, stored at `offset`, written to out[outOffset …]. */
export function dequantiseRow(
  dtype: BlockDType,
  bytes: Uint8Array,
  offset: number,
  columns: number,
  out: Float32Array,
  outOffset: number,
): void {
  const { blockSize, blockBytes, dequantise } = dtypes[dtype];
  const numBlocks = columns / blockSize;
  for (let b = 0; b < numBlocks; b++) dequantise(bytes, offset + b * blockBytes, out, outOffset + b * blockSize);
}

/** Rows first … first + count − 1 of the matrix in `bytes`, whose rows have `columns` values, to out[0 …]. */
export function dequantiseRows(
  dtype: DType,
  bytes: Uint8Array,
  columns: number,
  first: number,
  count: number,
  out: Float32Array, // [count, columns]
): void {
  if (!isPacked(dtype)) {
    const rowBytes = matrixBytes(dtype, 1, columns)!;
    for (let r = 0; r < count; r++) dequantiseRow(dtype, bytes, (first + r) * rowBytes, columns, out, r * columns);
    return;
  }
  const block = createIntegerBlock(PACKED_BLOCK);
  forEachBlock(dtype, bytes, columns, first, count, block, (index) =>
    dequantiseBlock(block, out, index * PACKED_BLOCK),
  );
}

/**
 * Calls `use` for the blocks of the same rows of a quantised matrix, in ascending order, with their integers in `block`
 * and their number, counted from the first.
 */
export function forEachBlock(
  dtype: DType,
  bytes: Uint8Array,
  columns: number,
  first: number,
  count: number,
  block: IntegerBlock,
  use: (index: number) => void,
): void {
  const row = dtypes[dtype];
  const numBlocks = columns / row.blockSize;
  if (row.layout === 'blocks') {
    invariant(row.unpack, `weights stored as ${dtype} have no integers`);
    for (let index = 0; index < count * numBlocks; index++) {
      row.unpack(bytes, (first * numBlocks + index) * row.blockBytes, block);
      use(index);
    }
    return;
  }
  const packedType = dtype as PackedDType;
  const bytesPerPanel = panelBytes(packedType, columns);
  for (let r = first; r < first + count; r++) {
    const panel = Math.floor(r / PANEL_ROWS) * bytesPerPanel;
    for (let b = 0; b < numBlocks; b++) {
      unpackPackedBlock(packedType, bytes, panel, r % PANEL_ROWS, b, block);
      use((r - first) * numBlocks + b);
    }
  }
}
