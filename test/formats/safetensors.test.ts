import { describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../src/base/errors.js';
import { memorySource } from '../../src/formats/byte-source.js';
import { requireTensor } from '../../src/formats/model-file.js';
import { readSafetensors } from '../../src/formats/safetensors.js';
import { cpuTime } from './cpu-time.js';
import { expectEngineError } from './engine-error.js';
import { float32Bytes } from './gguf-writer.js';
import { rawSafetensors, writeSafetensors } from './safetensors-writer.js';

const path = '/models/model.safetensors';
const read = (bytes: Uint8Array) => readSafetensors(memorySource(path, bytes));

describe('safetensors header', () => {
  test('place, shape and type of each tensor are read', () => {
    const weight = float32Bytes([1, 2, 3, 4, 5, 6]);
    const file = writeSafetensors([
      { name: 'weight', dtype: 'F32', shape: [2, 3], bytes: weight },
      { name: 'half', dtype: 'F16', shape: [3], bytes: new Uint8Array(6) },
      { name: 'brain', dtype: 'BF16', shape: [1, 1, 1, 2, 1], bytes: new Uint8Array(4) },
      { name: 'scalar', dtype: 'F32', shape: [], bytes: new Uint8Array(4) },
      { name: 'nothing', dtype: 'F32', shape: [0, 7], bytes: new Uint8Array(0) },
    ]);
    const { tensors, metadata } = read(file);
    expect(metadata).toEqual({ format: 'pt' });
    const info = tensors.get('weight');
    expect(info).toMatchObject({ name: 'weight', dtype: 'f32', shape: [2, 3], byteLength: 24, file: path });
    expect(file.subarray(info?.offset, (info?.offset ?? 0) + 24)).toEqual(weight);
    expect(tensors.get('half')).toMatchObject({ dtype: 'f16', shape: [3], byteLength: 6 });
    expect(tensors.get('brain')).toMatchObject({ dtype: 'bf16', shape: [1, 1, 1, 2, 1], byteLength: 4 });
    expect(tensors.get('scalar')).toMatchObject({ shape: [], byteLength: 4 });
    expect(tensors.get('nothing')).toMatchObject({ shape: [0, 7], byteLength: 0 });
  });

  test('tensors may be listed in another order than they lie', () => {
    const header =
      '{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}';
    const { tensors } = read(rawSafetensors(header, 8));
    expect((tensors.get('b')?.offset ?? 0) - (tensors.get('a')?.offset ?? 0)).toBe(4);
  });

  test('a tensor called __proto__ is only a tensor', () => {
    const header = '{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}';
    expect([...read(rawSafetensors(header, 4)).tensors.keys()]).toEqual(['__proto__']);
  });

  test('a tensor of an unsupported type is an error when it is asked for', async () => {
    const header = read(
      writeSafetensors([
        { name: 'position_ids', dtype: 'I64', shape: [2], bytes: new Uint8Array(16) },
        { name: 'weight', dtype: 'F32', shape: [1], bytes: new Uint8Array(4) },
      ]),
    );
    const model = { path, files: new Map(), ...header };
    expect(requireTensor(model, 'weight').shape).toEqual([1]);
    await expectEngineError(
      () => requireTensor(model, 'position_ids'),
      'DTYPE_UNSUPPORTED',
      'position_ids',
      'I64',
      'bf16',
    );
    await expectEngineError(() => requireTensor(model, 'bias'), 'TENSOR_MISSING', path, 'bias');
  });

  test('a header of 60,000 tensors is read in well under 2 s', () => {
    const entries = Array.from(
      { length: 60_000 },
      (_, i) => `"model.layers.${i}.weight":{"dtype":"F32","shape":[1],"data_offsets":[${i * 4},${i * 4 + 4}]}`,
    );
    const file = rawSafetensors(`{${entries.join(',')}}`, 240_000);
    expect(cpuTime(() => expect(read(file).tensors.size).toBe(60_000))).toBeLessThan(2000);
  });
});

/** One tensor called w with these properties in place of the right ones; the file has 8 bytes of data. */
const one = (properties: Record<string, unknown>) =>
  rawSafetensors(JSON.stringify({ w: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...properties } }), 8);
const entry = (begin: number, end: number) =>
  `{"dtype":"F32","shape":[${(end - begin) / 4}],"data_offsets":[${begin},${end}]}`;
const two = (a: string, b: string, data: number) => rawSafetensors(`{"a":${a},"b":${b}}`, data);

const cases: readonly (readonly [name: string, bytes: Uint8Array, code: ErrorCode, ...message: string[]])[] = [
  [
    'a header longer than the file',
    rawSafetensors('{}', 0, 1000n),
    'FORMAT_INVALID',
    'header length is 1000',
    'only 2 bytes',
  ],
  [
    'a header over 100 MB',
    rawSafetensors('{}', 0, 100_000_001n),
    'FORMAT_LIMIT',
    'header length is 100000001',
    '100000000',
  ],
  ['a header of 2^64 - 1 bytes', rawSafetensors('{}', 0, 2n ** 64n - 1n), 'FORMAT_LIMIT', '18446744073709551615'],
  ['a header of 0 bytes', rawSafetensors('', 0), 'FORMAT_INVALID', 'first byte of the header is missing'],
  ['a header that does not start with {', rawSafetensors(' {}', 0), 'FORMAT_INVALID', 'first byte of the header is 32'],
  ['a header that is not JSON', rawSafetensors('{"a":', 0), 'FORMAT_INVALID', 'character 5 is missing'],
  ['a header that is not UTF-8', rawSafetensors(Uint8Array.of(0x7b, 0xfe, 0x7d), 0), 'FORMAT_INVALID', 'UTF-8'],
  ['deep JSON', rawSafetensors('{"a":'.repeat(1_000_000), 0), 'FORMAT_LIMIT', 'depth of the JSON is 65'],
  [
    'a duplicate tensor',
    rawSafetensors(`{"a":${entry(0, 4)},"a":${entry(4, 8)}}`, 8),
    'FORMAT_INVALID',
    '"a"',
    'already',
  ],
  ['metadata that is a list', rawSafetensors('{"__metadata__":[]}', 0), 'FORMAT_INVALID', '__metadata__ is a list'],
  ['metadata that holds a number', rawSafetensors('{"__metadata__":{"a":1}}', 0), 'FORMAT_INVALID', '__metadata__'],
  ['a tensor that is null', rawSafetensors('{"w":null}', 0), 'FORMAT_INVALID', 'tensor w is null'],
  ['an empty name', rawSafetensors(`{"":${entry(0, 4)}}`, 4), 'FORMAT_INVALID', 'tensor name is ""'],
  ['a name with NUL', rawSafetensors(`{"a\\u0000":${entry(0, 4)}}`, 4), 'FORMAT_INVALID', 'tensor name', 'printable'],
  ['a name with a lone surrogate', rawSafetensors(`{"a\\ud800":${entry(0, 4)}}`, 4), 'FORMAT_INVALID', 'tensor name'],
  ['a name of 1,025 characters', rawSafetensors(`{"${'n'.repeat(1025)}":${entry(0, 4)}}`, 4), 'FORMAT_LIMIT', '1025'],
  ['an unknown type', one({ dtype: 'F33' }), 'FORMAT_INVALID', 'tensor w dtype is "F33"'],
  ['a type that is a built-in property', one({ dtype: 'constructor' }), 'FORMAT_INVALID', 'tensor w dtype'],
  ['a type that is a number', one({ dtype: 4 }), 'FORMAT_INVALID', 'tensor w dtype is 4'],
  ['no type', one({ dtype: undefined }), 'FORMAT_INVALID', 'tensor w dtype is missing'],
  ['no shape', one({ shape: undefined }), 'FORMAT_INVALID', 'tensor w shape is missing'],
  ['a negative dimension', one({ shape: [-2] }), 'FORMAT_INVALID', 'tensor w shape[0] is -2'],
  ['a fractional dimension', one({ shape: [0.5] }), 'FORMAT_INVALID', 'tensor w shape[0] is 0.5'],
  ['a dimension as text', one({ shape: ['2'] }), 'FORMAT_INVALID', 'tensor w shape[0] is "2"'],
  ['a dimension beyond the safe integers', one({ shape: [2 ** 53] }), 'FORMAT_INVALID', 'tensor w shape[0]'],
  [
    'a product that wraps to the right size',
    one({ shape: [2 ** 33, 2 ** 31, 2] }),
    'FORMAT_INVALID',
    'tensor w size in bytes is 8',
  ],
  ['9 dimensions', one({ shape: [1, 1, 1, 1, 1, 1, 1, 1, 2] }), 'FORMAT_LIMIT', 'number of dimensions is 9'],
  ['a shape too small for its bytes', one({ shape: [1] }), 'FORMAT_INVALID', 'size in bytes is 8', 'has 4'],
  ['a type too small for its bytes', one({ dtype: 'F16' }), 'FORMAT_INVALID', 'size in bytes is 8', 'has 4'],
  ['half a byte too many', one({ dtype: 'F4', shape: [15] }), 'FORMAT_INVALID', 'size in bytes is 8', 'has 7.5'],
  ['no offsets', one({ data_offsets: undefined }), 'FORMAT_INVALID', 'tensor w data_offsets is missing'],
  ['one offset', one({ data_offsets: [0] }), 'FORMAT_INVALID', 'tensor w data_offsets'],
  ['three offsets', one({ data_offsets: [0, 8, 8] }), 'FORMAT_INVALID', 'tensor w data_offsets is "[0, 8, 8]"'],
  ['offsets in the wrong order', one({ data_offsets: [8, 0] }), 'FORMAT_INVALID', 'tensor w data_offsets is "[8, 0]"'],
  ['a negative offset', one({ data_offsets: [-8, 0] }), 'FORMAT_INVALID', 'tensor w data_offsets[0] is -8'],
  ['offsets past the end', one({ data_offsets: [4, 12] }), 'FORMAT_INVALID', 'tensor w data_offsets', 'the 8 bytes'],
  [
    'an offset of 2^64',
    one({ data_offsets: [0, 2 ** 64] }),
    'FORMAT_INVALID',
    'data_offsets[1] is 18446744073709552000',
  ],
  [
    'overlapping tensors',
    two(entry(0, 8), entry(4, 12), 12),
    'FORMAT_INVALID',
    'tensor b data_offsets[0] is 4',
    'expected 8',
  ],
  ['two tensors in one place', two(entry(0, 8), entry(0, 8), 8), 'FORMAT_INVALID', 'tensor b data_offsets[0] is 0'],
  [
    'a gap between tensors',
    two(entry(0, 4), entry(8, 12), 12),
    'FORMAT_INVALID',
    'tensor b data_offsets[0] is 8',
    'expected 4',
  ],
  ['a gap before the tensors', two(entry(4, 8), entry(8, 12), 12), 'FORMAT_INVALID', 'tensor a data_offsets[0] is 4'],
  [
    'bytes after the last tensor',
    two(entry(0, 4), entry(4, 8), 12),
    'FORMAT_INVALID',
    'end of the last tensor is 8',
    '12',
  ],
];

describe('a hostile safetensors file is refused, naming file, field and value', () => {
  for (const [name, bytes, code, ...message] of cases) {
    test(name, () => expectEngineError(() => read(bytes), code, path, ...message));
  }

  test('more than 65,536 tensors', () => {
    const entries = Array.from({ length: 65_537 }, (_, i) => `"${i}":${entry(0, 0)}`);
    return expectEngineError(() => read(rawSafetensors(`{${entries.join(',')}}`, 0)), 'FORMAT_LIMIT', '65537');
  });
});

test('a safetensors file cut off at any byte is refused', async () => {
  const bytes = writeSafetensors([
    { name: 'a', dtype: 'F32', shape: [2], bytes: new Uint8Array(8) },
    { name: 'b', dtype: 'BF16', shape: [2, 2], bytes: new Uint8Array(8) },
  ]);
  expect(read(bytes).tensors.size).toBe(2);
  for (let length = 0; length < bytes.length; length++) {
    await expectEngineError(() => read(bytes.slice(0, length)), 'FORMAT_INVALID', path);
  }
});
