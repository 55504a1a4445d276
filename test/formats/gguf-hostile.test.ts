import { describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../src/base/errors.js';
import { memorySource } from '../../src/formats/byte-source.js';
import { readGguf } from '../../src/formats/gguf.js';
import { expectEngineError } from './engine-error.js';
import { type GgufInput, list, type TensorInput, typed, writeGguf } from './gguf-writer.js';

const path = '/models/hostile.gguf';
const readBytes = (bytes: Uint8Array) => readGguf(memorySource(path, bytes));

const f32 = (name: string, rest: Partial<TensorInput> = {}): TensorInput => ({
  name,
  dtype: 'f32',
  shape: [2],
  ...rest,
});
const oneTensor = (rest: Partial<TensorInput>): GgufInput => ({ tensors: [f32('weight', rest)] });
const key = (name: string | Uint8Array) => [name, 1] as const;

/** Nested lists around one number. */
function nested(depth: number) {
  let value = list('uint8', [1]);
  for (let i = 1; i < depth; i++) value = list('array', [value]);
  return value;
}

type Case = readonly [name: string, input: GgufInput, code: ErrorCode, ...message: string[]];

const cases: readonly Case[] = [
  // --- counts
  [
    'tensor count of 2^64 - 1',
    { numTensors: 2n ** 64n - 1n },
    'FORMAT_LIMIT',
    'number of tensors',
    '18446744073709551615',
  ],
  ['tensor count just over the limit', { numTensors: 65_537 }, 'FORMAT_LIMIT', 'number of tensors', '65537'],
  ['tensor count without the tensors', { numTensors: 3 }, 'FORMAT_INVALID', 'tensor 0 name is missing'],
  ['key count of 2^63', { numKeys: 2n ** 63n }, 'FORMAT_LIMIT', 'number of metadata keys', '9223372036854775808'],
  ['key count without the keys', { numKeys: 9 }, 'FORMAT_INVALID', 'metadata key 1 is missing'],
  ['no metadata at all', { metadata: {} }, 'FORMAT_INVALID', 'number of metadata keys', '0'],

  // --- magic and version
  ['another magic number', { magic: 'GGJT' }, 'FORMAT_INVALID', 'magic'],
  ['version 1', { version: 1 }, 'FORMAT_INVALID', 'version is 1', 'expected 2 or 3'],
  ['version 0', { version: 0 }, 'FORMAT_INVALID', 'version is 0'],
  ['version 4', { version: 4 }, 'FORMAT_INVALID', 'version is 4'],
  ['big-endian version', { version: 0x03000000 }, 'FORMAT_INVALID', 'version', 'big-endian'],

  // --- metadata keys and values
  ['empty key', { metadata: [key('')] }, 'FORMAT_INVALID', 'metadata key 0', '""'],
  ['duplicate key', { metadata: [key('a'), key('a')] }, 'FORMAT_INVALID', 'metadata key 1', '"a"', 'already'],
  ['key with NUL', { metadata: [key('a\0b')] }, 'FORMAT_INVALID', 'metadata key 0', 'printable'],
  ['key with an escape sequence', { metadata: [key('\x1b[2J')] }, 'FORMAT_INVALID', 'metadata key 0', 'printable'],
  ['key that is not UTF-8', { metadata: [key(Uint8Array.of(0xc3, 0x28))] }, 'FORMAT_INVALID', 'metadata key 0'],
  ['over-long key', { metadata: [key('k'.repeat(65_536))] }, 'FORMAT_LIMIT', 'metadata key 0 length', '65536'],
  ['bool of 2', { metadata: { flag: typed('bool', 2) } }, 'FORMAT_INVALID', 'flag', '2'],
  ['lists nested too deeply', { metadata: { deep: nested(5) } }, 'FORMAT_LIMIT', 'deep', 'depth'],
  ['alignment 0', { metadata: { 'general.alignment': 0 } }, 'FORMAT_INVALID', 'general.alignment is 0', 'power of two'],
  ['alignment 24', { metadata: { 'general.alignment': 24 } }, 'FORMAT_INVALID', 'general.alignment is 24'],
  ['alignment 4', { metadata: { 'general.alignment': 4 } }, 'FORMAT_INVALID', 'general.alignment is 4'],
  ['negative alignment', { metadata: { 'general.alignment': -32 } }, 'FORMAT_INVALID', 'general.alignment is -32'],
  ['fractional alignment', { metadata: { 'general.alignment': 32.5 } }, 'FORMAT_INVALID', 'general.alignment is 32.5'],
  ['alignment NaN', { metadata: { 'general.alignment': Number.NaN } }, 'FORMAT_INVALID', 'general.alignment is NaN'],
  ['alignment as text', { metadata: { 'general.alignment': '32' } }, 'FORMAT_INVALID', 'general.alignment is "32"'],
  [
    'alignment of 2^31',
    { metadata: { 'general.alignment': 2 ** 31 } },
    'FORMAT_LIMIT',
    'general.alignment',
    '2147483648',
  ],
  [
    'alignment beyond the safe integers',
    { metadata: { 'general.alignment': typed('uint64', 2n ** 63n) } },
    'FORMAT_INVALID',
    'general.alignment is 9223372036854775808',
  ],
  [
    'fewer scores than tokens',
    { metadata: { 'tokenizer.ggml.tokens': ['a', 'b'], 'tokenizer.ggml.scores': list('float32', [1]) } },
    'FORMAT_INVALID',
    'tokenizer.ggml.scores length is 1',
    '2 tokens',
  ],
  [
    'more token types than tokens',
    { metadata: { 'tokenizer.ggml.tokens': ['a'], 'tokenizer.ggml.token_type': list('int32', [1, 1]) } },
    'FORMAT_INVALID',
    'tokenizer.ggml.token_type length is 2',
  ],

  // --- tensor entries
  ['tensor name of 65 bytes', { tensors: [f32('n'.repeat(65))] }, 'FORMAT_LIMIT', 'tensor 0 name length', '65'],
  ['empty tensor name', { tensors: [f32('')] }, 'FORMAT_INVALID', 'tensor 0 name', '""'],
  ['tensor name with NUL', { tensors: [f32('a\0')] }, 'FORMAT_INVALID', 'tensor 0 name', 'printable'],
  ['tensor name with a line break', { tensors: [f32('a\nb')] }, 'FORMAT_INVALID', 'tensor 0 name', 'printable'],
  ['tensor name with a right-to-left mark', { tensors: [f32('a\u202eb')] }, 'FORMAT_INVALID', 'tensor 0 name'],
  ['duplicate tensor name', { tensors: [f32('a'), f32('a')] }, 'FORMAT_INVALID', 'tensor a name', 'already'],
  ['no dimensions', oneTensor({ dimensions: [] }), 'FORMAT_INVALID', 'tensor weight number of dimensions is 0'],
  [
    '5 dimensions',
    oneTensor({ dimensions: [1, 1, 1, 1, 1] }),
    'FORMAT_LIMIT',
    'tensor weight number of dimensions is 5',
  ],
  [
    '2^32 - 1 dimensions',
    oneTensor({ numDimensions: 2 ** 32 - 1 }),
    'FORMAT_LIMIT',
    'number of dimensions is 4294967295',
  ],
  ['dimension 0', oneTensor({ dimensions: [4, 0] }), 'FORMAT_INVALID', 'tensor weight dimension 1 is 0'],
  ['dimension -1', oneTensor({ dimensions: [2n ** 64n - 1n] }), 'FORMAT_LIMIT', 'tensor weight dimension 0'],
  [
    'dimension product of 2^64',
    oneTensor({ dimensions: [2 ** 32, 2 ** 32] }),
    'FORMAT_LIMIT',
    '4294967296 x 4294967296',
  ],
  [
    'dimension product that wraps to 0',
    oneTensor({ dimensions: Array(4).fill(2 ** 16) }),
    'FORMAT_LIMIT',
    'number of elements',
  ],
  [
    'size that wraps around',
    oneTensor({ dimensions: [2n ** 53n - 1n] }),
    'FORMAT_INVALID',
    'tensor weight size is 36028797018963',
  ],
  ['unknown type id', oneTensor({ typeId: 1000 }), 'FORMAT_INVALID', 'tensor weight type is 1000'],
  ['negative type id', oneTensor({ typeId: -1 }), 'FORMAT_INVALID', 'tensor weight type is 4294967295'],
  ['a type of ggml without kernels', oneTensor({ typeId: 17 }), 'DTYPE_UNSUPPORTED', 'weight', 'iq2_xs', 'q4_0'],
  ['a type that ggml removed', oneTensor({ typeId: 4 }), 'DTYPE_UNSUPPORTED', 'weight', 'q4_2'],
  ['row of half a block', { tensors: [{ name: 'q', dtype: 'q4_k', shape: [2, 384] }] }, 'FORMAT_INVALID', '384', '256'],
  ['offset between alignments', oneTensor({ offset: 16 }), 'FORMAT_INVALID', 'tensor weight offset is 16', '32'],
  ['offset at the end', oneTensor({ offset: 32 }), 'FORMAT_INVALID', 'tensor weight size is 8'],
  ['offset of 2^64 - 32', oneTensor({ offset: 2n ** 64n - 32n }), 'FORMAT_LIMIT', 'offset', '18446744073709551584'],
  [
    'offset of 2^53 - 32',
    oneTensor({ offset: 2n ** 53n - 32n }),
    'FORMAT_INVALID',
    'tensor weight size is 8',
    'ends past',
  ],
  ['more bytes than the file', oneTensor({ dimensions: [1000] }), 'FORMAT_INVALID', 'tensor weight size is 4000'],
  [
    'overlapping tensors',
    { tensors: [f32('a', { shape: [16] }), f32('b', { offset: 32 })] },
    'FORMAT_INVALID',
    'tensor b',
    'within tensor a',
  ],
  [
    'a vector in an own type',
    { alignment: 64, tensors: [{ name: 'v', dtype: 'int8', shape: [32] }] },
    'FORMAT_INVALID',
    'tensor v number of dimensions is 1',
    'expected 2',
  ],
  [
    'row of half a group',
    { alignment: 64, tensors: [{ name: 'q', dtype: 'int4_g64', shape: [16, 96] }] },
    'FORMAT_INVALID',
    'tensor q row length is 96',
    '64',
  ],
  [
    'a panel that is cut short',
    { alignment: 64, tensors: [{ name: 'q', dtype: 'int4', shape: [1, 32], bytes: new Uint8Array(383) }] },
    'FORMAT_INVALID',
    'tensor q size is 384',
    'ends past',
  ],
  [
    'more panels than can be counted',
    { alignment: 64, tensors: [{ name: 'q', dtype: 'int4', shape: [1, 32], dimensions: [2 ** 49, 2] }] },
    'FORMAT_INVALID',
    'tensor q size is',
    'ends past',
  ],
  [
    'two tensors in one place',
    { tensors: [f32('a'), f32('b', { offset: 0 })] },
    'FORMAT_INVALID',
    'tensor b',
    'within tensor a',
  ],
];

describe('a hostile GGUF file is refused, naming file, field and value', () => {
  for (const [name, input, code, ...message] of cases) {
    const parts = code === 'DTYPE_UNSUPPORTED' ? message : [path, ...message];
    test(name, () => expectEngineError(() => readBytes(writeGguf(input)), code, ...parts));
  }

  /** A header that ends inside of the value of the key "bomb": its type, then raw words. */
  const bomb = (type: number, ...words: readonly bigint[]) => {
    const start = writeGguf({ metadata: [['bomb', typed('uint8', 0)]] }).slice(0, -5);
    const rest = Buffer.alloc(4 + words.length * 8);
    rest.writeUInt32LE(type);
    words.forEach((word, i) => void rest.writeBigUInt64LE(word, 4 + i * 8));
    return Buffer.concat([start, rest]);
  };
  /** Element type, count and padding of a list. */
  const bombList = (elementType: bigint, count: bigint) => {
    const bytes = Buffer.concat([bomb(9, 0n, 0n), Buffer.alloc(1000)]);
    const at = bytes.length - 1000 - 16;
    bytes.writeUInt32LE(Number(elementType), at);
    bytes.writeBigUInt64LE(count, at + 4);
    return bytes;
  };

  const bombs: readonly (readonly [string, Uint8Array, ErrorCode, ...string[]])[] = [
    ['value type 13', bomb(13), 'FORMAT_INVALID', 'bomb type is 13'],
    ['value type -1', bomb(0xffffffff), 'FORMAT_INVALID', 'bomb type is 4294967295'],
    ['string of 2^64 - 1 bytes', bomb(8, 2n ** 64n - 1n), 'FORMAT_LIMIT', 'bomb length is 18446744073709551615'],
    ['string of 2^33 bytes', bomb(8, 2n ** 33n), 'FORMAT_LIMIT', 'bomb length is 8589934592'],
    ['string longer than the file', bomb(8, 1000n, 0n), 'FORMAT_INVALID', 'bomb is missing', 'needs 1000 bytes'],
    ['list with element type 99', bombList(99n, 1n), 'FORMAT_INVALID', 'bomb element type is 99'],
    ['list of 2^64 - 1 bytes', bombList(0n, 2n ** 64n - 1n), 'FORMAT_LIMIT', 'bomb number of elements'],
    ['list of 2^30 strings', bombList(8n, 2n ** 30n), 'FORMAT_LIMIT', 'bomb number of elements is 1073741824'],
    ['list of numbers longer than the file', bombList(4n, 300n), 'FORMAT_INVALID', 'bomb number of elements is 300'],
    ['list of strings longer than the file', bombList(8n, 126n), 'FORMAT_INVALID', 'bomb number of elements is 126'],
    ['list of lists longer than the file', bombList(9n, 84n), 'FORMAT_INVALID', 'bomb number of elements is 84'],
  ];
  for (const [name, bytes, code, ...message] of bombs) {
    test(name, () => expectEngineError(() => readBytes(bytes), code, path, ...message));
  }

  test('panels between cache lines are refused', async () => {
    // The data starts at a multiple of 32; one of the two tensors lies at an odd one.
    const tensors = [0, 416].map((offset) => ({ name: `t${offset}`, dtype: 'int4' as const, shape: [16, 32], offset }));
    const bytes = new Uint8Array(416 + 384);
    const file = writeGguf({ tensors: tensors.map((tensor) => ({ ...tensor, bytes })) });
    await expectEngineError(() => readBytes(file), 'FORMAT_INVALID', 'position in the file', 'a multiple of 64');
  });

  test('a bad element of a list is named by its index', async () => {
    const bytes = writeGguf({ metadata: { flags: list('bool', [true, false, 7]) } });
    await expectEngineError(() => readBytes(bytes), 'FORMAT_INVALID', 'flags[2] is 7');
  });

  test('lists share one budget of elements', async () => {
    const half = list('uint8', new Uint8Array(3 << 20));
    const bytes = writeGguf({ metadata: { a: half, b: half } });
    await expectEngineError(() => readBytes(bytes), 'FORMAT_LIMIT', 'b number of elements is 3145728', '1048576');
  });

  test('lists of lists count for more than lists of numbers', async () => {
    const bytes = writeGguf({ metadata: { a: list('array', new Array(65_537).fill(list('uint8', []))) } });
    await expectEngineError(() => readBytes(bytes), 'FORMAT_LIMIT', 'a number of elements is 65537', '65536');
  });

  test('a header of more than 256 MiB is refused', async () => {
    const keys = ['k0', 'k1', 'k2', 'k3', 'k4'];
    const stringBytes = 2 ** 26;
    const start = writeGguf({ metadata: keys.map((name) => [name, ''] as const) });
    // Each key with its type and its string's length has 22 bytes; the strings are holes of a sparse file.
    const pieces = keys.map((_, i) => {
      const bytes = start.slice(24 + i * 22, 24 + (i + 1) * 22);
      new DataView(bytes.buffer).setBigUint64(14, BigInt(stringBytes), true);
      return { at: 24 + i * (22 + stringBytes), bytes };
    });
    const source = {
      path,
      size: 2 ** 30,
      read(target: Uint8Array, position: number) {
        target.fill(0);
        for (const { at, bytes } of [{ at: 0, bytes: start.slice(0, 24) }, ...pieces]) {
          bytes.forEach((byte, i) => {
            if (at + i >= position && at + i < position + target.length) target[at + i - position] = byte;
          });
        }
      },
    };
    await expectEngineError(() => readGguf(source), 'FORMAT_LIMIT', 'k3', 'more than the limit of 268435456');
  });

  test('a file that shrinks while it is read is refused', async () => {
    const bytes = writeGguf({ metadata: { k: 'x'.repeat(100) } });
    const source = { ...memorySource(path, bytes.slice(0, 60)), size: bytes.length };
    await expectEngineError(() => readGguf(source), 'FORMAT_INVALID', 'file size is 60');
  });
});

test('a GGUF file cut off at any byte is refused', async () => {
  const bytes = writeGguf({
    metadata: {
      name: 'test',
      sizes: list('uint32', [1, 2]),
      words: ['a', 'bc'],
      nested: nested(3),
      f: typed('float64', 1),
    },
    tensors: [f32('a'), { name: 'b', dtype: 'q8_0', shape: [2, 32] }],
  });
  expect(readBytes(bytes).tensors.size).toBe(2);
  for (let length = 0; length < bytes.length; length++) {
    await expectEngineError(() => readBytes(bytes.slice(0, length)), 'FORMAT_INVALID', path);
  }
});
