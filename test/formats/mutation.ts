/** A small deterministic generator of random numbers (splitmix32): one stream for each pair of seed and index. */
export class Random {
  private state: number;

  constructor(seed: number, index: number) {
    this.state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) | 0;
  }

  /** An unsigned 32-bit integer. */
  next(): number {
    this.state = (this.state + 0x9e3779b9) | 0;
    let z = this.state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    return this.next() % limit;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/** Numbers at the edges of what parsers take for granted. */
const edges: readonly bigint[] = [
  0n,
  1n,
  2n,
  8n,
  31n,
  2n ** 16n,
  2n ** 24n,
  2n ** 26n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 32n,
  2n ** 64n - 1n,
];

/** Pieces of text that mean something to JSON, to objects or to file systems. */
const words: readonly string[] = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '\\u0000',
  '\\ud800',
  '-1',
  '0',
  '1e999',
  '-0.5',
  '9007199254740993',
  '18446744073709551616',
  'NaN',
  'null',
  'true',
  '"__proto__":{}',
  '"toString":1',
  '"dtype":"F64"',
  '"shape":[]',
  '"data_offsets":[0,0]',
  '[[[[[[[[',
  '\0',
  '\ufeff',
  '../',
];

/** One to eight random changes of a file, one being the likeliest; `others` may lend their bytes. */
export function mutate(original: Uint8Array, random: Random, others: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let bytes = Uint8Array.from(original);
  // Few changes get past the first checks, many meet each other.
  for (let changes = 1 + random.below(1 + random.below(8)); changes > 0; changes--)
    bytes = change(bytes, random, others);
  return bytes;
}

function change(
  bytes: Uint8Array<ArrayBuffer>,
  random: Random,
  others: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1);
  const to = Math.min(bytes.length, at + random.below(64));
  switch (random.below(9)) {
    case 0: // flip one bit
      if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
      return bytes;
    case 1: // another byte
      if (at < bytes.length) bytes[at] = random.below(256);
      return bytes;
    case 2: // another 32-bit number
      if (at + 4 <= bytes.length) view(bytes).setUint32(at, Number(number(random) & 0xffffffffn), true);
      return bytes;
    case 3: // another 64-bit number
      if (at + 8 <= bytes.length) view(bytes).setBigUint64(at, number(random), true);
      return bytes;
    case 4: // text in place of text
      return splice(bytes, at, Math.min(bytes.length, at + random.below(4)), Buffer.from(random.pick(words)));
    case 5: // some bytes less
      return splice(bytes, at, to, new Uint8Array(0));
    case 6: // some bytes twice
      return splice(bytes, at, at, bytes.slice(at, to));
    case 7: {
      // a piece of another file
      const other = random.pick(others);
      const from = random.below(other.length + 1);
      return splice(bytes, at, to, other.subarray(from, from + random.below(64)));
    }
    default: // the end is missing, now and then
      return random.below(8) === 0 ? bytes.slice(0, at) : bytes;
  }
}

/** A count, type or size that could be meant, or one at an edge. */
function number(random: Random): bigint {
  return random.below(2) === 0 ? BigInt(random.below(50)) : random.pick(edges);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function splice(bytes: Uint8Array, from: number, to: number, piece: Uint8Array): Uint8Array<ArrayBuffer> {
  const spliced = new Uint8Array(bytes.length - (to - from) + piece.length);
  spliced.set(bytes.subarray(0, from));
  spliced.set(piece, from);
  spliced.set(bytes.subarray(to), from + piece.length);
  return spliced;
}
