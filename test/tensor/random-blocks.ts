import { type BlockDType, type DType, dtypes, isPacked, matrixBytes } from '../../src/tensor/dtype.js';
import { floatToHalf } from '../../src/tensor/float16.js';
import {
  createPanelIntegers,
  type PackedDType,
  packedLayouts,
  packPanel,
  panelBytes,
} from '../../src/tensor/packed.js';
import { seededNormal, seededRandom } from './random.js';

/** Where the float16 factors of each quantised type lie within a block, in bytes. */
const halfOffsets: Partial<Record<BlockDType, readonly number[]>> = {
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

export const packedTypes = Object.keys(packedLayouts) as PackedDType[];
export const blockTypes = (Object.keys(dtypes) as DType[]).filter((dtype): dtype is BlockDType => !isPacked(dtype));
export const quantisedTypes = Object.keys(halfOffsets) as BlockDType[];

/** Stored bytes of a matrix of random values, small enough that sums of products stay finite. */
export function randomMatrix(dtype: DType, rows: number, columns: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(matrixBytes(dtype, rows, columns)!);
  if (!isPacked(dtype)) {
    const rowBytes = bytes.length / rows;
    for (let r = 0; r < rows; r++) bytes.set(randomRow(dtype, columns, seed + r), r * rowBytes);
    return bytes;
  }
  const random = seededRandom(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
  setFactors(bytes, dtype, columns, seed + 1);
  return bytes;
}

/** d and m of every panel, random, in place of what is there; rows of padding get some too. */
function setFactors(bytes: Uint8Array, dtype: PackedDType, columns: number, seed: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const word = new DataView(new ArrayBuffer(4));
  const normal = seededNormal(seed);
  for (let panel = 0; panel < bytes.length; panel += panelBytes(dtype, columns)) {
    for (let i = 0; i < 32; i++) {
      word.setFloat32(0, normal() / 4096);
      view.setUint16(panel + 2 * i, i < 16 || packedLayouts[dtype].mins ? word.getUint16(0) : 0, true);
    }
  }
}

/** The same, with every code and factor code at the value whose bits are those of `fill`: sums at their largest. */
export function filledMatrix(dtype: DType, rows: number, columns: number, fill: number, seed: number): Uint8Array {
  if (!isPacked(dtype)) return filledRow(dtype, rows * columns, fill, seed);
  const bytes = new Uint8Array(matrixBytes(dtype, rows, columns)!).fill(fill);
  setFactors(bytes, dtype, columns, seed);
  return bytes;
}

/**
 * A matrix of an own type whose scale and min codes are 255, and whose codes are the largest there are; every other one
 * is the most negative if `alternating`. d and m are 1 for all rows, so nothing but the sums of integers decides.
 */
export function saturatedMatrix(dtype: PackedDType, rows: number, columns: number, alternating: boolean): Uint8Array {
  const [low, high] = packedLayouts[dtype].bits === 8 ? [-127, 127] : [0, 15];
  const panel = createPanelIntegers(dtype, columns);
  panel.codes.set(panel.codes.map((_, i) => (alternating && i % 2 === 1 ? low : high)));
  panel.scales.fill(255);
  panel.d.fill(1);
  if (packedLayouts[dtype].mins) {
    panel.mins.fill(255);
    panel.m.fill(1);
  }
  const bytes = new Uint8Array(matrixBytes(dtype, rows, columns)!);
  const step = panelBytes(dtype, columns);
  for (let offset = 0; offset < bytes.length; offset += step) packPanel(dtype, panel, columns, bytes, offset);
  return bytes;
}

/**
 * Stored bytes of `count` random values, a multiple of the block size: normal values for float types; for quantised ones
 * random codes and scales with a small finite d (and dmin) per block.
 */
export function randomRow(dtype: BlockDType, count: number, seed: number): Uint8Array {
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

function filledRow(dtype: BlockDType, count: number, fill: number, seed: number): Uint8Array {
  const bytes = randomRow(dtype, count, seed);
  const offsets = halfOffsets[dtype]!.flatMap((offset) => [offset, offset + 1]);
  const { blockBytes } = dtypes[dtype];
  return bytes.map((byte, i) => (offsets.includes(i % blockBytes) ? byte : fill));
}
