/** Storage types of keys and values; a type's place is its number in native code (KvDType in kernels.h). */
export const kvDtypes = ['f32', 'f16', 'int8'] as const;
export type KvDType = (typeof kvDtypes)[number];

/** What llama.cpp and vLLM keep by default, too. */
export const DEFAULT_KV_DTYPE: KvDType = 'f16';

/** Bytes of one token's keys, or values, of one KV head: its values, with 8 bits also their scale as float32. */
export function kvRowBytes(dtype: KvDType, headDim: number): number {
  switch (dtype) {
    case 'f32':
      return 4 * headDim;
    case 'f16':
      return 2 * headDim;
    case 'int8':
      return headDim + 4;
  }
}

/** Bytes of the keys, or values, of one block and KV head. Scales start at a multiple of 4. */
export function kvBlockBytes(dtype: KvDType, headDim: number, blockSize: number): number {
  return Math.ceil((blockSize * kvRowBytes(dtype, headDim)) / 4) * 4;
}
