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
}

export const dtypes: Readonly<Record<DType, DTypeRow>> = {
  f32: { id: 0, blockSize: 1, blockBytes: 4 },
  f16: { id: 1, blockSize: 1, blockBytes: 2 },
  bf16: { id: 30, blockSize: 1, blockBytes: 2 },
  q4_0: { id: 2, blockSize: 32, blockBytes: 18 },
  q4_1: { id: 3, blockSize: 32, blockBytes: 20 },
  q5_0: { id: 6, blockSize: 32, blockBytes: 22 },
  q5_1: { id: 7, blockSize: 32, blockBytes: 24 },
  q8_0: { id: 8, blockSize: 32, blockBytes: 34 },
  q2_k: { id: 10, blockSize: 256, blockBytes: 84 },
  q3_k: { id: 11, blockSize: 256, blockBytes: 110 },
  q4_k: { id: 12, blockSize: 256, blockBytes: 144 },
  q5_k: { id: 13, blockSize: 256, blockBytes: 176 },
  q6_k: { id: 14, blockSize: 256, blockBytes: 210 },
  iq4_nl: { id: 20, blockSize: 32, blockBytes: 18 },
  iq3_s: { id: 21, blockSize: 256, blockBytes: 110 },
  iq4_xs: { id: 23, blockSize: 256, blockBytes: 136 },
  tq2_0: { id: 35, blockSize: 256, blockBytes: 66 },
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
