import { dtypes } from '../tensor/dtype.js';

/** Storage types of matrices that can be made. */
export type MatrixDType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q5_0' | 'q4_0' | 'q4_k' | 'q6_k';

/** What matters to how a matrix is stored. */
export interface MatrixPlace {
  readonly role: 'embedding' | 'output' | 'value' | 'down' | 'other';
  /** Of a tied embedding, which is also the output. */
  readonly tied: boolean;
  readonly layer: number;
  readonly numLayers: number;
  readonly columns: number;
}

interface SyntheticTypeRow {
  /** llama.cpp's number for the mix, `general.file_type`; its tools name the file after it. */
  readonly fileType: number;
  readonly dtypeOf: (place: MatrixPlace) => MatrixDType;
}

/** Every matrix in one type. */
function uniform(fileType: number, dtype: MatrixDType): SyntheticTypeRow {
  return { fileType, dtypeOf: () => dtype };
}

/** How files can be stored; norms are f32 in all of them. */
export const syntheticTypes = {
  f32: uniform(0, 'f32'),
  f16: uniform(1, 'f16'),
  bf16: uniform(32, 'bf16'),
  q8_0: uniform(7, 'q8_0'),
  q4_0: uniform(2, 'q4_0'),
  q4_k_m: { fileType: 15, dtypeOf: mediumMix },
  q6_k: uniform(18, 'q6_k'),
} as const satisfies Record<string, SyntheticTypeRow>;

export type SyntheticType = keyof typeof syntheticTypes;

export const syntheticTypeNames = Object.keys(syntheticTypes) as SyntheticType[];

/**
 * llama.cpp's Q4_K_M: q4_k, but q6_k for the output (or the embedding that is also the output), and for the value and
 * down projections of the first eighth of the layers, the last eighth, and every third in between.
 */
function mediumMix({ role, tied, layer, numLayers }: MatrixPlace): MatrixDType {
  const eighth = Math.floor(numLayers / 8);
  const isSensitive = layer < eighth || layer >= Math.floor((7 * numLayers) / 8) || (layer - eighth) % 3 === 2;
  const isOutput = role === 'output' || (role === 'embedding' && tied);
  return isOutput || ((role === 'value' || role === 'down') && isSensitive) ? 'q6_k' : 'q4_k';
}

/** What llama.cpp takes where rows are no multiple of 256: the next larger type in blocks of 32. */
const fallbacks: Partial<Record<MatrixDType, MatrixDType>> = { q4_k: 'q5_0', q6_k: 'q8_0' };

/** The type of one matrix in a file of the given type. */
export function matrixType(type: SyntheticType, place: MatrixPlace): MatrixDType {
  const dtype = syntheticTypes[type].dtypeOf(place);
  return place.columns % dtypes[dtype].blockSize === 0 ? dtype : (fallbacks[dtype] ?? dtype);
}
