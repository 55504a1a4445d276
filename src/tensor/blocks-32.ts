import { readHalf } from './float16.js';
import type { UnpackBlock } from './integer-block.js';

/**
 * Blocks of 32 weights with one scale (ggml's block_q4_0 … block_iq4_nl). In the four- and five-bit types byte j holds
 * weight j in its low nibble and weight j + 16 in its high one.
 */
const HALF = 16;

/** f16 d; 16 bytes of codes, stored plus 8. */
export const unpackQ4_0: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.scales.fill(1);
  block.mins.fill(0);
  for (let j = 0; j < HALF; j++) {
    const byte = bytes[offset + 2 + j]!;
    block.codes[j] = (byte & 15) - 8;
    block.codes[j + HALF] = (byte >> 4) - 8;
  }
};

/** f16 d, f16 m; weight = d · code + m. */
export const unpackQ4_1: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = -readHalf(bytes, offset + 2);
  block.scales.fill(1);
  block.mins.fill(1);
  for (let j = 0; j < HALF; j++) {
    const byte = bytes[offset + 4 + j]!;
    block.codes[j] = byte & 15;
    block.codes[j + HALF] = byte >> 4;
  }
};

/** f16 d; bit i of 4 bytes is the fifth bit of code i; 16 bytes of low nibbles. Codes are stored plus 16. */
export const unpackQ5_0: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.scales.fill(1);
  block.mins.fill(0);
  unpackFiveBits(bytes, offset + 2, block.codes, 16);
};

/** f16 d, f16 m; codes as in Q5_0; weight = d · code + m. */
export const unpackQ5_1: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = -readHalf(bytes, offset + 2);
  block.scales.fill(1);
  block.mins.fill(1);
  unpackFiveBits(bytes, offset + 4, block.codes, 0);
};

function unpackFiveBits(bytes: Uint8Array, offset: number, codes: Int8Array, bias: number): void {
  for (let j = 0; j < HALF; j++) {
    const byte = bytes[offset + 4 + j]!;
    const low = (bytes[offset + (j >> 3)]! >> (j & 7)) & 1;
    const high = (bytes[offset + 2 + (j >> 3)]! >> (j & 7)) & 1;
    codes[j] = ((byte & 15) | (low << 4)) - bias;
    codes[j + HALF] = ((byte >> 4) | (high << 4)) - bias;
  }
}

/** f16 d; 32 signed bytes. */
export const unpackQ8_0: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.scales.fill(1);
  block.mins.fill(0);
  for (let i = 0; i < 2 * HALF; i++) block.codes[i] = bytes[offset + 2 + i]!; // Int8Array wraps 128 … 255
};

/** The non-linear four-bit codebook shared by IQ4_NL and IQ4_XS (ggml's kvalues_iq4nl). */
export const iq4Codebook = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** f16 d; 16 bytes of indices into the codebook. */
export const unpackIQ4_NL: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.scales.fill(1);
  block.mins.fill(0);
  for (let j = 0; j < HALF; j++) {
    const byte = bytes[offset + 2 + j]!;
    block.codes[j] = iq4Codebook[byte & 15]!;
    block.codes[j + HALF] = iq4Codebook[byte >> 4]!;
  }
};
