import { readHalf } from './float16.js';
import type { UnpackBlock } from './integer-block.js';

/**
 * Super-blocks of 256 weights (ggml's k-quants, block_q2_K … block_q6_K): groups of 16 or 32 with integer scales and
 * mins, times one f16 d and dmin per block. Codes of low bits come in planes: one byte holds the same bits of weights
 * that lie 32 apart.
 */
const BLOCK = 256;

/** 16 bytes: scale of group g in the low nibble, min in the high one; 64 bytes of 2-bit codes; f16 d, f16 dmin. */
export const unpackQ2_K: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset + 80);
  block.dmin = readHalf(bytes, offset + 82);
  for (let g = 0; g < 16; g++) {
    block.scales[g] = bytes[offset + g]! & 15;
    block.mins[g] = bytes[offset + g]! >> 4;
  }
  for (let i = 0; i < BLOCK; i++) block.codes[i] = twoBits(bytes, offset + 16, i);
};

/** Code i of 64 bytes: 128 weights per 32 bytes, bits 2p and 2p + 1 of a byte belong to plane p of 32 weights. */
export function twoBits(bytes: Uint8Array, offset: number, i: number): number {
  return (bytes[offset + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
}

/** 32 bytes of high bits (0 subtracts 4); 64 bytes of 2-bit codes; 12 bytes of 6-bit scales, stored plus 32; f16 d. */
export const unpackQ3_K: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset + 108);
  block.dmin = 0;
  block.mins.fill(0);
  for (let g = 0; g < 16; g++) {
    // Low nibbles: bytes 0 … 7, groups 0 … 7 then 8 … 15. High two bits: bytes 8 … 11, planes of four groups.
    const low = (bytes[offset + 96 + (g & 7)]! >> (4 * (g >> 3))) & 15;
    const high = (bytes[offset + 104 + (g & 3)]! >> (2 * (g >> 2))) & 3;
    block.scales[g] = (low | (high << 4)) - 32;
  }
  for (let i = 0; i < BLOCK; i++) {
    const high = (bytes[offset + (i & 31)]! >> (i >> 5)) & 1;
    block.codes[i] = twoBits(bytes, offset + 32, i) + 4 * high - 4;
  }
};

/** f16 d, f16 dmin; 12 bytes of 6-bit scales and mins; 128 bytes of nibbles. */
export const unpackQ4_K: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = readHalf(bytes, offset + 2);
  unpackScalesAndMins(bytes, offset + 4, block.scales, block.mins);
  for (let i = 0; i < BLOCK; i++) block.codes[i] = nibble(bytes, offset + 16, i);
};

/** As Q4_K, with 32 bytes of fifth bits before the nibbles: bit p of byte i belongs to weight 32 · p + i. */
export const unpackQ5_K: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset);
  block.dmin = readHalf(bytes, offset + 2);
  unpackScalesAndMins(bytes, offset + 4, block.scales, block.mins);
  for (let i = 0; i < BLOCK; i++) {
    const high = (bytes[offset + 16 + (i & 31)]! >> (i >> 5)) & 1;
    block.codes[i] = nibble(bytes, offset + 48, i) | (high << 4);
  }
};

/** Code i of 128 bytes: 64 weights per 32 bytes, the first 32 in the low nibbles. */
function nibble(bytes: Uint8Array, offset: number, i: number): number {
  return (bytes[offset + 32 * (i >> 6) + (i & 31)]! >> (4 * ((i >> 5) & 1))) & 15;
}

/**
 * Eight 6-bit scales and mins of groups of 32 in 12 bytes. The first four scales are the low six bits of bytes 0 … 3,
 * the first four mins those of bytes 4 … 7; the others have their low nibbles in bytes 8 … 11 (scale low, min high) and
 * their high two bits at the top of bytes 0 … 3 and 4 … 7.
 */
function unpackScalesAndMins(bytes: Uint8Array, offset: number, scales: Int32Array, mins: Int32Array): void {
  for (let s = 0; s < 4; s++) {
    const a = bytes[offset + s]!;
    const b = bytes[offset + 4 + s]!;
    const c = bytes[offset + 8 + s]!;
    scales.fill(a & 63, 2 * s, 2 * s + 2);
    mins.fill(b & 63, 2 * s, 2 * s + 2);
    scales.fill((c & 15) | ((a >> 6) << 4), 2 * s + 8, 2 * s + 10);
    mins.fill((c >> 4) | ((b >> 6) << 4), 2 * s + 8, 2 * s + 10);
  }
}

/** 128 bytes of low nibbles, 64 bytes of high two bits, 16 signed scales, f16 d. Codes are stored plus 32. */
export const unpackQ6_K: UnpackBlock = (bytes, offset, block) => {
  block.d = readHalf(bytes, offset + 208);
  block.dmin = 0;
  block.mins.fill(0);
  for (let g = 0; g < 16; g++) block.scales[g] = (bytes[offset + 192 + g]! << 24) >> 24;
  for (let i = 0; i < BLOCK; i++) {
    // 128 weights per 64 bytes of nibbles: weights 0 … 63 in the low nibbles, 64 … 127 in the high ones.
    const low = (bytes[offset + 64 * (i >> 7) + (i & 63)]! >> (4 * ((i >> 6) & 1))) & 15;
    block.codes[i] = (low | (twoBits(bytes, offset + 128, i) << 4)) - 32;
  }
};
