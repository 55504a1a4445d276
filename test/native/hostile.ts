import { seededRandom } from '../tensor/random.js';

/** Values around the edges of what is allowed. */
export const edges = [
  0,
  1,
  -1,
  2,
  31,
  32,
  33,
  63,
  64,
  65,
  116,
  117,
  255,
  256,
  257,
  2 ** 16,
  2 ** 24,
  2 ** 31 - 1,
  -(2 ** 31),
];

/** Spoils arrays that were fine. */
export function hostile(seed: number) {
  const random = seededRandom(seed);
  const below = (limit: number): number => Math.floor(random() * limit);
  const mutate = (words: Int32Array): Int32Array => {
    const mutated = words.slice();
    for (let i = below(3); i >= 0; i--) {
      const at = below(mutated.length);
      switch (below(4)) {
        case 0:
          mutated[at] = edges[below(edges.length)]!;
          break;
        case 1:
          mutated[at] = mutated[at]! + below(5) - 2;
          break;
        case 2:
          mutated[at] = mutated[at]! ^ (1 << below(32));
          break;
        case 3:
          mutated[at] = mutated[below(mutated.length)]!;
          break;
      }
    }
    return below(20) === 0 ? mutated.slice(0, below(mutated.length)) : mutated;
  };
  return { below, mutate };
}
