import { bfloatToFloat, readHalf } from './float16.js';
import type { DequantiseBlock } from './integer-block.js';

/** Unquantised types: a block is one value. */

const word = new Uint8Array(4);
const float = new DataView(word.buffer);

export const dequantiseF32: DequantiseBlock = (bytes, offset, out, outOffset) => {
  for (let i = 0; i < 4; i++) word[i] = bytes[offset + i]!;
  out[outOffset] = float.getFloat32(0, true);
};

export const dequantiseF16: DequantiseBlock = (bytes, offset, out, outOffset) => {
  out[outOffset] = readHalf(bytes, offset);
};

export const dequantiseBF16: DequantiseBlock = (bytes, offset, out, outOffset) => {
  out[outOffset] = bfloatToFloat(bytes[offset]! | (bytes[offset + 1]! << 8));
};
