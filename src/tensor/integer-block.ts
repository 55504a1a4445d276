/** Weights that share one scale and one min code. Formats with larger groups repeat theirs. */
export const SCALE_GROUP = 16;

/**
 * One block of quantised weights as integers: weight i of group g = ⌊i / 16⌋ is d · scales[g] · codes[i] − dmin · mins[g].
 * Products of the factors have at most 24 significant bits in every format, so they are exact in float32.
 */
export interface IntegerBlock {
  readonly codes: Int8Array; // [blockSize]
  readonly scales: Int32Array; // [blockSize / 16] −128 … 255
  readonly mins: Int32Array; // [blockSize / 16] 0 … 255
  d: number;
  dmin: number;
}

/** Reads one block stored at `offset`. */
export type UnpackBlock = (bytes: Uint8Array, offset: number, block: IntegerBlock) => void;

/** Writes the values of one block, stored at `offset`, to out[outOffset …]. */
export type DequantiseBlock = (bytes: Uint8Array, offset: number, out: Float32Array, outOffset: number) => void;

export function createIntegerBlock(blockSize: number): IntegerBlock {
  const groups = blockSize / SCALE_GROUP;
  return {
    codes: new Int8Array(blockSize),
    scales: new Int32Array(groups),
    mins: new Int32Array(groups),
    d: 0,
    dmin: 0,
  };
}

/** The floats of a quantised type from its integers. */
export function dequantiseIntegers(unpack: UnpackBlock, blockSize: number): DequantiseBlock {
  const block = createIntegerBlock(blockSize); // scratch, overwritten by every call
  return (bytes, offset, out, outOffset) => {
    unpack(bytes, offset, block);
    dequantiseBlock(block, out, outOffset);
  };
}

/**
 * f32(f32(f32(d · scale) · code) − f32(dmin · min)) of each weight of a block. Only the difference can round, so any
 * order of evaluation, fused or not, gives these same bits.
 */
export function dequantiseBlock(block: IntegerBlock, out: Float32Array, outOffset: number): void {
  const { codes, scales, mins } = block;
  for (let group = 0; group < scales.length; group++) {
    const scale = Math.fround(block.d * scales[group]!);
    const min = Math.fround(block.dmin * mins[group]!);
    const end = (group + 1) * SCALE_GROUP;
    for (let i = group * SCALE_GROUP; i < end; i++) out[outOffset + i] = Math.fround(scale * codes[i]!) - min;
  }
}
