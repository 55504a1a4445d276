/**
 * SplitMix with 32 bits (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). Streams of
 * different numbers under one seed are independent enough for prompts and arrivals.
 */
export class Random {
  #state: number;

  constructor(seed: number, ...stream: readonly number[]) {
    this.#state = stream.reduce((state, number) => mix(state ^ mix(number + GAMMA)), mix(seed));
  }

  /** 0 to 2³² − 1. */
  word(): number {
    this.#state = (this.#state + GAMMA) | 0;
    return mix(this.#state) >>> 0;
  }

  /** Above 0, at most 1. */
  uniform(): number {
    return (this.word() + 1) / 2 ** 32;
  }
}

/** 2³² divided by the golden ratio. */
const GAMMA = 0x9e3779b9;

/** The finalizer of MurmurHash3. */
function mix(value: number): number {
  let z = value | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return z ^ (z >>> 16);
}

/** Ids below this are, in most vocabularies, special tokens and single bytes. */
const FIRST_ID = 259;

/** [length] token ids, the same for the same numbers. */
export function randomTokens(length: number, vocabSize: number, random: Random): number[] {
  const first = vocabSize > 2 * FIRST_ID ? FIRST_ID : 0;
  return Array.from({ length }, () => first + (random.word() % (vocabSize - first)));
}

/** Times of a Poisson process in milliseconds, from 0: gaps are exponential with a mean of 1 / rate. */
export function* poissonArrivals(perSecond: number, random: Random): Generator<number, never> {
  let at = 0;
  for (;;) {
    yield at;
    at += (-Math.log(random.uniform()) * 1000) / perSecond;
  }
}
