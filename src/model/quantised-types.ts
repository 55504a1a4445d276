import { type DType, isPacked, rowMultiple } from '../tensor/dtype.js';
import { PANEL_ROWS, type PackedDType } from '../tensor/packed.js';
import type { Role } from './names.js';

/** What quantising makes of a model's matrices. Norm weights and biases become float32. */
export interface QuantisedTypes {
  /** Matrices of the layers. */
  readonly layers: PackedDType;
  /** Token embeddings and the output head, one matrix or two; null keeps them as they are stored. */
  readonly head: PackedDType | null;
}

/** `--quantize int8|int4`: what `engine quantize` does unless told otherwise. */
export const quantisedTypes: Readonly<Record<'int8' | 'int4', QuantisedTypes>> = {
  int8: { layers: 'int8', head: 'int8' },
  int4: { layers: 'int4', head: 'int8' },
};

/** A matrix as it is stored: all rows of its tensor, and where the parts of it start that are weights of their own. */
export interface StoredMatrix {
  readonly dtype: DType;
  readonly columns: number;
  readonly partStarts: readonly number[];
}

/**
 * The type a stored matrix is quantised to, or null if it is used as it is: learned positions (few, and added to the
 * embeddings' own error), rows that 32 does not divide, stacked matrices whose parts start within a panel, and what has
 * one of these types already. Where a group does not divide the rows but 32 does, the type is int8.
 */
export function quantisedType(role: Role, matrix: StoredMatrix, types: QuantisedTypes): PackedDType | null {
  if (role === 'positions' || isPacked(matrix.dtype)) return null;
  if (matrix.partStarts.some((row) => row % PANEL_ROWS !== 0)) return null;
  const wanted = role === 'embedding' || role === 'head' ? types.head : types.layers;
  if (wanted === null) return null;
  return [wanted, 'int8' as const].find((dtype) => matrix.columns % rowMultiple(dtype) === 0) ?? null;
}
