import { unpackIQ4_NL, unpackQ4_0, unpackQ4_1, unpackQ5_0, unpackQ5_1, unpackQ8_0 } from './blocks-32.js';
import { dequantiseBF16, dequantiseF16, dequantiseF32 } from './blocks-float.js';
import { unpackIQ3_S, unpackIQ4_XS, unpackTQ2_0 } from './blocks-iq.js';
import { unpackQ2_K, unpackQ3_K, unpackQ4_K, unpackQ5_K, unpackQ6_K } from './blocks-k.js';
import { type DequantiseBlock, dequantiseIntegers, type UnpackBlock } from './integer-block.js';

/**
 * The one table of storage types. A type is one row here and its functions; nowhere else may code ask
 * "is this the four-bit type?".
 *
 * Sizes and block layouts follow the GGUF specification and ggml's block structures.
 */

export type DType =
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

export interface DTypeRow {
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

function float(id: number, blockBytes: number, dequantise: DequantiseBlock): DTypeRow {
  return { id, blockSize: 1, blockBytes, dequantise };
}

function quantised(id: number, blockSize: number, blockBytes: number, unpack: UnpackBlock): DTypeRow {
  return { id, blockSize, blockBytes, dequantise: dequantiseIntegers(unpack, blockSize), unpack };
}

export const dtypes: Readonly<Record<DType, DTypeRow>> = {
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
};

const byId = new Map<number, DType>((Object.keys(dtypes) as DType[]).map((name) => [dtypes[name].id, name]));

/** The storage type with this GGUF id, or null if the engine does not know it. */
export function dtypeFromId(id: number): DType | null {
  return byId.get(id) ?? null;
}

/** Bytes of one row of `columns` values, or null if blocks do not divide the row. */
export function rowBytes(dtype: DType, columns: number): number | null {
  const { blockSize, blockBytes } = dtypes[dtype];
  return columns % blockSize === 0 ? (columns / blockSize) * blockBytes : null;
}

/** One row of `columns` values, stored at `offset`, written to out[outOffset …]. */
export function dequantiseRow(
  dtype: DType,
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
