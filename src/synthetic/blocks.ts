import { invariant } from '../base/errors.js';
import { dtypes } from '../tensor/dtype.js';
import { floatToHalf } from '../tensor/float16.js';
import { normals, RandomWords } from './random.js';
import type { MatrixDType } from './types.js';

/**
 * Random weights, made as the blocks of their storage type: codes and scales are drawn, not found by quantising. What
 * comes out has mean 0 and about this standard deviation, so that activations keep their size from layer to layer.
 */
const DEVIATION = 0.02;

/** Turns an array that is full of random words into values of a type, in place; `bytes` is the same memory. */
type Finish = (words: Uint32Array, bytes: Uint8Array) => void;

/** Entries of the tables that random bits choose from. */
const TABLE = 1 << 16;

/** Weights made at once: whole blocks of every type, whole words, and within the caches. */
const CHUNK_VALUES = 1 << 18;

/** Makers by storage type; each builds its tables when it is asked for. */
const makers: Readonly<Record<MatrixDType, () => Finish>> = {
  f32: () => {
    const table = Float32Array.from(deviates(), (x) => DEVIATION * x);
    return (words) => {
      const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
      for (let i = 0; i < words.length; i++) floats[i] = table[words[i]! & (TABLE - 1)]!;
    };
  },
  f16: () => halves(Uint16Array.from(deviates(), (x) => floatToHalf(DEVIATION * x))),
  bf16: () => {
    const floats = Float32Array.from(deviates(), (x) => DEVIATION * x);
    const bits = new Uint16Array(floats.buffer);
    return halves(Uint16Array.from({ length: TABLE }, (_, i) => bits[2 * i + 1]!)); // the upper half
  },
  // Codes of q8_0 are normal: largest 127, as if a block's largest value were three deviations.
  q8_0: () => {
    const code = (x: number) => Math.max(-127, Math.min(127, Math.round((127 / 3) * x))) & 255;
    const table = Uint8Array.from(deviates().subarray(0, 256), code);
    const scales = scaleTable((DEVIATION * 3) / 127);
    return (words, bytes) => {
      for (let i = 0; i < words.length; i++) {
        const r = words[i]!;
        words[i] =
          table[r & 255]! |
          (table[(r >>> 8) & 255]! << 8) |
          (table[(r >>> 16) & 255]! << 16) |
          (table[r >>> 24]! << 24);
      }
      placeScales(bytes, 34, 0, scales);
    };
  },
  // In the types below codes are uniform. Their mean is half a step off zero, which signs of the scales cancel.
  q4_0: () => scaled(18, 0, DEVIATION / uniformDeviation(16)),
  q5_0: () => scaled(22, 0, DEVIATION / uniformDeviation(32)),
  q4_k: () => {
    const block = groupScales();
    const d = DEVIATION / uniformDeviation(16) / block.meanScale;
    const head = Uint16Array.of(floatToHalf(d), floatToHalf(7.5 * d)); // min = 7.5 · scale: the mean of 0 … 15 is 0
    const headBytes = new Uint8Array(head.buffer);
    return (_, bytes) => {
      for (let at = 0; at < bytes.length; at += 144) {
        const pattern = 12 * bytes[at]!;
        for (let i = 0; i < 4; i++) bytes[at + i] = headBytes[i]!;
        for (let i = 0; i < 12; i++) bytes[at + 4 + i] = block.patterns[pattern + i]!;
      }
    };
  },
  q6_k: () => {
    const scale = (byte: number) => (byte & 128 ? -1 : 1) * (64 + (byte & 63));
    const table = Int8Array.from({ length: 256 }, (_, byte) => scale(byte));
    const d = floatToHalf(DEVIATION / uniformDeviation(64) / 95.5);
    return (_, bytes) => {
      for (let at = 0; at < bytes.length; at += 210) {
        for (let i = 192; i < 208; i++) bytes[at + i] = table[bytes[at + i]!]!;
        bytes[at + 208] = d & 255;
        bytes[at + 209] = d >> 8;
      }
    };
  },
};

/** Random weights of one file. The same seed and stream give the same bytes; streams are independent. */
export class RandomWeights {
  readonly #finishes = new Map<MatrixDType, Finish>();

  constructor(readonly seed: number) {}

  /** This many bytes of whole blocks, in pieces; a piece is valid until the next one is asked for. */
  *blocks(dtype: MatrixDType, byteLength: number, stream: number): Generator<Uint8Array> {
    const { blockBytes, blockSize } = dtypes[dtype];
    invariant(byteLength % blockBytes === 0, `${byteLength} bytes are no blocks of ${dtype}`);
    const finish = this.#finishes.get(dtype) ?? makers[dtype]();
    this.#finishes.set(dtype, finish);
    const random = new RandomWords(this.seed, stream);
    const buffer = new ArrayBuffer((CHUNK_VALUES / blockSize) * blockBytes);
    const words = new Uint32Array(buffer);
    const bytes = new Uint8Array(buffer);
    for (let done = 0; done < byteLength; done += bytes.length) {
      random.fill(words);
      finish(words, bytes);
      yield bytes.subarray(0, Math.min(bytes.length, byteLength - done));
    }
  }

  /** Norm weights: close to one. */
  norm(length: number, stream: number): Uint8Array {
    const values = Float32Array.from(normals(length, new RandomWords(this.seed, stream)), (x) => 1 + DEVIATION * x);
    return new Uint8Array(values.buffer);
  }
}

/** [TABLE] The same for every seed: which of them are taken is what a seed decides. */
function deviates(): Float64Array {
  return normals(TABLE, new RandomWords(0, 0));
}

/** Standard deviation of a uniform choice of this many neighbouring integers. */
function uniformDeviation(values: number): number {
  return Math.sqrt((values * values - 1) / 12);
}

function halves(table: Uint16Array): Finish {
  return (words) => {
    for (let i = 0; i < words.length; i++) {
      const r = words[i]!;
      words[i] = table[r & (TABLE - 1)]! | (table[r >>> 16]! << 16);
    }
  };
}

/** [256] Scales of both signs, from 0.75 to 1.25 times this one, as binary16. */
function scaleTable(scale: number): Uint16Array {
  const value = (i: number) => (i & 1 ? -scale : scale) * (0.75 + (i >> 1) / 254);
  return Uint16Array.from({ length: 256 }, (_, i) => floatToHalf(value(i)));
}

function scaled(blockBytes: number, offset: number, scale: number): Finish {
  const table = scaleTable(scale);
  return (_, bytes) => placeScales(bytes, blockBytes, offset, table);
}

/** Puts a scale where a block has random bits, which choose it. */
function placeScales(bytes: Uint8Array, blockBytes: number, offset: number, table: Uint16Array): void {
  for (let at = offset; at < bytes.length; at += blockBytes) {
    const half = table[bytes[at]! ^ bytes[at + 1]!]!;
    bytes[at] = half & 255;
    bytes[at + 1] = half >> 8;
  }
}

/**
 * 256 patterns of eight 6-bit scales from 32 to 63, each with a min of the same size, packed into 12 bytes as q4_k has
 * them: see unpackScalesAndMins in tensor/blocks-k.ts.
 */
function groupScales(): { patterns: Uint8Array; meanScale: number } {
  const words = new Uint32Array(256 * 8);
  new RandomWords(0, 1).fill(words);
  const patterns = new Uint8Array(256 * 12);
  for (let p = 0; p < 256; p++) {
    const scale = (g: number) => 32 + (words[8 * p + g]! >>> 27);
    for (let s = 0; s < 4; s++) {
      const low = scale(s);
      const high = scale(4 + s);
      patterns[12 * p + s] = low | ((high >> 4) << 6);
      patterns[12 * p + 4 + s] = low | ((high >> 4) << 6);
      patterns[12 * p + 8 + s] = (high & 15) | ((high & 15) << 4);
    }
  }
  return { patterns, meanScale: 47.5 };
}
