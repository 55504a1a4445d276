/**
 * Fills arrays with random words: xoshiro128** (Blackman, Vigna: Scrambled Linear Pseudorandom Number Generators, ACM
 * TOMS 47, 2021), seeded with a hash of two numbers. Some 500 million words a second.
 */
export class RandomWords {
  readonly #state = new Int32Array(4);

  /** Streams of different numbers are independent. */
  constructor(seed: number, stream: number) {
    let x = Math.imul(seed | 0, 0x9e3779b9) ^ Math.imul(stream + 1, 0x85ebca6b);
    for (let i = 0; i < 4; i++) {
      // The finalizer of MurmurHash3 on a Weyl sequence, as in SplitMix.
      x = (x + 0x9e3779b9) | 0;
      let z = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      this.#state[i] = z ^ (z >>> 16);
    }
    this.#state[0]! |= 1; // all zeros would stay zeros
  }

  fill(words: Uint32Array): void {
    let a = this.#state[0]!;
    let b = this.#state[1]!;
    let c = this.#state[2]!;
    let d = this.#state[3]!;
    for (let i = 0; i < words.length; i++) {
      const product = Math.imul(b, 5);
      words[i] = Math.imul((product << 7) | (product >>> 25), 9);
      const shifted = b << 9;
      c ^= a;
      d ^= b;
      b ^= c;
      a ^= d;
      c ^= shifted;
      d = (d << 11) | (d >>> 21);
    }
    this.#state.set([a, b, c, d]);
  }
}

/** Uniform numbers in a sum that is nearly normal: their variance is 1. */
const SUMMANDS = 12;

/**
 * [length] samples with mean 0 and deviation 1, nearly of a normal distribution: sums of uniform numbers, which have the
 * same bits everywhere, as logarithms and cosines have not.
 */
export function normals(length: number, random: RandomWords): Float64Array {
  const halves = new Uint16Array(SUMMANDS * length);
  random.fill(new Uint32Array(halves.buffer));
  const values = new Float64Array(length);
  for (let i = 0; i < halves.length; i++) values[Math.floor(i / SUMMANDS)]! += (halves[i]! + 0.5) / 65_536;
  return values.map((sum) => sum - SUMMANDS / 2);
}
