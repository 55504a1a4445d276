import { type DType, dtypes } from '../../src/tensor/dtype.js';
import { floatToHalf } from '../../src/tensor/float16.js';
import { seededNormal, seededRandom } from './random.js';

/** Where the float16 factors of each quantised type lie within a block, in bytes. */
const halfOffsets: Partial<Record<DType, readonly number[]>> = {
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  q8_0: [0],
  q2_k: [80, 82],
  q3_k: [108],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
  iq4_nl: [0],
  iq3_s: [0],
  iq4_xs: [0],
  tq2_0: [64],
};

export const allTypes = Object.keys(dtypes) as DType[];
export const quantisedTypes = Object.keys(halfOffsets) as DType[];

/**
 * Stored bytes of `count` random values, a multiple of the block size: normal values for float types; for quantised ones
 * random codes and scales with a small finite d (and dmin) per block.
 */
export function randomRow(dtype: DType, count: number, seed: number): Uint8Array {
  const { blockSize, blockBytes } = dtypes[dtype];
  const bytes = new Uint8Array((count / blockSize) * blockBytes);
  const view = new DataView(bytes.buffer);
  const normal = seededNormal(seed);
  const offsets = halfOffsets[dtype];
  if (offsets === undefined) {
    const word = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < count; i++) {
      const value = normal() / 8;
      word.setFloat32(0, value, true);
      if (dtype === 'f32') view.setFloat32(4 * i, value, true);
      else view.setUint16(2 * i, dtype === 'f16' ? floatToHalf(value) : word.getUint16(2, true), true);
    }
    return bytes;
  }
  const random = seededRandom(seed + 1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
  for (let block = 0; block < bytes.length; block += blockBytes) {
    for (const offset of offsets) view.setUint16(block + offset, floatToHalf(normal() / 64), true);
  }
  return bytes;
}

/** The same, with every code and integer scale at the value whose bits are those of `fill`: sums at their largest. */
export function filledRow(dtype: DType, count: number, fill: number, seed: number): Uint8Array {
  const bytes = randomRow(dtype, count, seed);
  const offsets = halfOffsets[dtype]!.flatMap((offset) => [offset, offset + 1]);
  const { blockBytes } = dtypes[dtype];
  return bytes.map((byte, i) => (offsets.includes(i % blockBytes) ? byte : fill));
}
