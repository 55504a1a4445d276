import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/formats/byte-source.js';
import { readGguf } from '../../src/formats/gguf.js';
import { type DType, dtypes, rowMultiple } from '../../src/tensor/dtype.js';
import { cpuTime } from './cpu-time.js';
import { float32Bytes, type GgufInput, list, tensorBytes, typed, writeGguf } from './gguf-writer.js';

const read = (input: GgufInput) => readGguf(memorySource('/models/test.gguf', writeGguf(input)));

describe('GGUF metadata', () => {
  test('every value type is read', () => {
    const { metadata } = read({
      metadata: {
        u8: typed('uint8', 255),
        i8: typed('int8', -128),
        u16: typed('uint16', 65_535),
        i16: typed('int16', -32_768),
        u32: typed('uint32', 2 ** 32 - 1),
        i32: typed('int32', -(2 ** 31)),
        f32: typed('float32', 0.5),
        f64: typed('float64', 1e300),
        yes: true,
        no: false,
        text: 'Größe 🦊 \u0000 \n',
        empty: '',
      },
    });
    expect(Object.fromEntries(metadata)).toEqual({
      u8: 255,
      i8: -128,
      u16: 65_535,
      i16: -32_768,
      u32: 2 ** 32 - 1,
      i32: -(2 ** 31),
      f32: 0.5,
      f64: 1e300,
      yes: true,
      no: false,
      text: 'Größe 🦊 \u0000 \n',
      empty: '',
    });
  });

  test('64-bit integers are numbers where that is exact, else bigints', () => {
    const { metadata } = read({
      metadata: {
        safe: typed('uint64', Number.MAX_SAFE_INTEGER),
        unsafe: typed('uint64', 2n ** 53n + 1n),
        largest: typed('uint64', 2n ** 64n - 1n),
        negative: typed('int64', -5n),
        lowest: typed('int64', -(2n ** 63n)),
        mixed: list('int64', [1n, -(2n ** 60n)]),
      },
    });
    expect(metadata.get('safe')).toBe(Number.MAX_SAFE_INTEGER);
    expect(metadata.get('unsafe')).toBe(2n ** 53n + 1n);
    expect(metadata.get('largest')).toBe(2n ** 64n - 1n);
    expect(metadata.get('negative')).toBe(-5);
    expect(metadata.get('lowest')).toBe(-(2n ** 63n));
    expect(metadata.get('mixed')).toEqual([1, -(2n ** 60n)]);
  });

  test('lists are read, nested and empty ones too', () => {
    const { metadata } = read({
      metadata: {
        floats: list('float32', [0.25, -1]),
        doubles: list('float64', [0.1]),
        bytes: list('uint8', [1, 2, 3]),
        shorts: list('int16', [-1]),
        flags: [true, false],
        words: ['a', '', 'ß'],
        none: list('string', []),
        nested: list('array', [list('uint32', [1, 2]), list('string', ['x'])]),
      },
    });
    expect(metadata.get('floats')).toEqual(Float32Array.of(0.25, -1));
    expect(metadata.get('doubles')).toEqual(Float64Array.of(0.1));
    expect(metadata.get('bytes')).toEqual(Uint8Array.of(1, 2, 3));
    expect(metadata.get('shorts')).toEqual(Int16Array.of(-1));
    expect(metadata.get('flags')).toEqual([true, false]);
    expect(metadata.get('words')).toEqual(['a', '', 'ß']);
    expect(metadata.get('none')).toEqual([]);
    expect(metadata.get('nested')).toEqual([Uint32Array.of(1, 2), ['x']]);
  });

  test('bytes of a string that are not UTF-8 become replacement characters', () => {
    const bytes = writeGguf({ metadata: { key: 'a?b' } });
    bytes[Buffer.from(bytes).indexOf('a?b') + 1] = 0xff;
    expect(readGguf(memorySource('x', bytes)).metadata.get('key')).toBe('a\ufffdb');
  });

  test('a string longer than the read-ahead window, and one across its edge, are read', () => {
    const long = 'x'.repeat(3 << 20);
    const across = 'y'.repeat((1 << 20) - 100);
    const { metadata } = read({ metadata: { across, second: 'second', long, last: 7 } });
    expect(metadata.get('across')).toBe(across);
    expect(metadata.get('second')).toBe('second');
    expect(metadata.get('long')).toBe(long);
    expect(metadata.get('last')).toBe(7);
  });

  test('a vocabulary of 152,000 tokens is read in well under 300 ms', () => {
    const tokens = Array.from({ length: 152_000 }, (_, i) => `Ġtoken${i}`);
    const merges = Array.from({ length: 152_000 }, (_, i) => `Ġto ken${i}`);
    const metadata = {
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': list('int32', new Int32Array(tokens.length)),
      'tokenizer.ggml.merges': merges,
    };
    const source = memorySource('x', writeGguf({ metadata }));
    const ms = cpuTime(() => {
      expect(readGguf(source).metadata.get('tokenizer.ggml.tokens')).toHaveLength(tokens.length);
    });
    expect(ms).toBeLessThan(300);
  });
});

describe('GGUF tensors', () => {
  test.each([2, 3])('version %i: place, shape and type of each tensor are read', (version) => {
    const { tensors } = read({
      version,
      tensors: [
        { name: 'norm.weight', dtype: 'f32', shape: [3], bytes: float32Bytes([1, 2, 3]) },
        { name: 'output.weight', dtype: 'q4_0', shape: [5, 64] },
        { name: 'experts', dtype: 'f16', shape: [2, 3, 4, 5] },
      ],
    });
    expect([...tensors.keys()]).toEqual(['norm.weight', 'output.weight', 'experts']);
    const [norm, output, experts] = [...tensors.values()];
    expect(norm).toMatchObject({ dtype: 'f32', shape: [3], byteLength: 12, file: '/models/test.gguf' });
    expect(output).toMatchObject({ dtype: 'q4_0', shape: [5, 64], byteLength: 5 * 36 });
    expect(experts).toMatchObject({ dtype: 'f16', shape: [2, 3, 4, 5], byteLength: 240 });
    expect((norm?.offset ?? 1) % 32).toBe(0);
    expect(output?.offset).toBe((norm?.offset ?? 0) + 32);
  });

  test('the bytes are where the header says', () => {
    const bytes = float32Bytes([1.5, -2]);
    const file = writeGguf({
      alignment: 64,
      tensors: [
        { name: 'a', dtype: 'f32', shape: [1] },
        { name: 'b', dtype: 'f32', shape: [2], bytes },
      ],
    });
    const { offset = 0, byteLength = 0 } = readGguf(memorySource('x', file)).tensors.get('b') ?? {};
    expect(file.subarray(offset, offset + byteLength)).toEqual(bytes);
    expect(offset % 64).toBe(0);
  });

  test.each(Object.keys(dtypes) as DType[])('type %s is known, and its size', (dtype) => {
    const shape = [3, rowMultiple(dtype) * 2];
    const info = read({ alignment: 64, tensors: [{ name: 't', dtype, shape }] }).tensors.get('t');
    expect(info).toMatchObject({ dtype, shape, byteLength: tensorBytes(dtype, shape) });
  });

  test('a file without tensors is a vocabulary', () => {
    expect(read({ metadata: { 'tokenizer.ggml.tokens': ['a'] } }).tensors.size).toBe(0);
  });

  test('a gap between tensors is allowed', () => {
    const { tensors } = read({
      tensors: [
        { name: 'a', dtype: 'f32', shape: [1] },
        { name: 'b', dtype: 'f32', shape: [1], bytes: new Uint8Array(100), offset: 64 },
      ],
    });
    expect((tensors.get('b')?.offset ?? 0) - (tensors.get('a')?.offset ?? 0)).toBe(64);
  });
});
