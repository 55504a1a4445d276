import { iq4Codebook } from './blocks-32.js';
import { twoBits } from './blocks-k.js';
import { readHalf } from './float16.js';
import type { UnpackBlock } from './integer-block.js';
import { iq3sGrid } from './iq3s-grid.js';

/** Super-blocks of 256 weights with codebooks or ternary codes (ggml's block_iq3_s, block_iq4_xs, block_tq2_0). */
const BLOCK = 256;

/**
 * f16 d; 64 bytes: low eight bits of the grid point of each four weights; 8 bytes: the ninth bits; 32 bytes of signs,
 * one bit per weight; 4 bytes: a nibble s per 32 weights, whose scale is 1 + 2s.
 */
export const unpackIQ3_S: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.mins.fill(0);
  for (let g = 0; g < 16; g++) {
    const nibble = (bytes[offset + 106 + (g >> 2)]! >> (4 * ((g >> 1) & 1))) & 15;
    block.scales[g] = 1 + 2 * nibble;
  }
  for (let i = 0; i < BLOCK; i++) {
    const point = i >> 2;
    const high = (bytes[offset + 66 + (point >> 3)]! >> (point & 7)) & 1;
    const magnitude = iq3sGrid[4 * (bytes[offset + 2 + point]! | (high << 8)) + (i & 3)]!;
    const negative = (bytes[offset + 74 + (i >> 3)]! >> (i & 7)) & 1;
    block.codes[i] = negative ? -magnitude : magnitude;
  }
};

/**
 * f16 d; 2 bytes: high two bits of the eight scales; 4 bytes: their low nibbles; then per 32 weights 16 bytes of indices
 * into the codebook, as in IQ4_NL. Scales are stored plus 32.
 */
export const unpackIQ4_XS: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = 0;
  block.mins.fill(0);
  const high = bytes[offset + 2]! | (bytes[offset + 3]! << 8);
  for (let s = 0; s < 8; s++) {
    const low = (bytes[offset + 4 + (s >> 1)]! >> (4 * (s & 1))) & 15;
    block.scales.fill((low | (((high >> (2 * s)) & 3) << 4)) - 32, 2 * s, 2 * s + 2);
  }
  for (let i = 0; i < BLOCK; i++) {
    const index = (bytes[offset + 8 + 16 * (i >> 5) + (i & 15)]! >> (4 * ((i >> 4) & 1))) & 15;
    block.codes[i] = iq4Codebook[index]!;
  }
};

/** 64 bytes of 2-bit codes, stored plus 1, in planes of 32 weights as in Q2_K; f16 d. */
export const unpackTQ2_0: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset + 64);
  block.dmin = 0;
  block.scales.fill(1);
  block.mins.fill(0);
  for (let i = 0; i < BLOCK; i++) block.codes[i] = twoBits(bytes, offset, i) - 1;
};
