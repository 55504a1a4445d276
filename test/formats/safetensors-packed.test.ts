import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../src/formats/byte-source.js';
import { readSafetensors } from '../../src/formats/safetensors.js';
import { PACKED_KEY } from '../../src/formats/safetensors-packed.js';
import { writeSafetensors } from '../../src/formats/safetensors-writer.js';
import { matrixBytes } from '../../src/tensor/dtype.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { packedTypes, randomMatrix } from '../tensor/random-blocks.js';
import { expectEngineError } from './engine-error.js';
import { rawSafetensors, writeSafetensors as safetensorsOf } from './safetensors-writer.js';

const folder = temporaryFolder();
const path = '/models/model.safetensors';
const read = (bytes: Uint8Array) => readSafetensors(memorySource(path, bytes));

const tensors = [
  { name: 'bias', dtype: 'f16', shape: [3] as number[], bytes: Uint8Array.of(1, 2, 3, 4, 5, 6) },
  { name: 'norm', dtype: 'f32', shape: [1] as number[], bytes: Uint8Array.of(7, 8, 9, 10) },
  ...packedTypes.map((dtype, i) => ({
    name: `matrix.${dtype}`,
    dtype,
    shape: [17, 128] as number[],
    bytes: randomMatrix(dtype, 17, 128, i),
  })),
] as const;

describe('packed matrices in safetensors', () => {
  test('are read as they were written, at multiples of a cache line', async () => {
    const file = join(folder, 'packed.safetensors');
    const inputs = tensors.map(({ bytes, ...tensor }) => ({ ...tensor, byteLength: bytes.length }));
    await writeSafetensors(file, { format: 'pt' }, inputs, (index) => [tensors[index]!.bytes]);
    const bytes = new Uint8Array(readFileSync(file));
    const header = read(bytes);
    expect(header.metadata.format).toBe('pt');
    expect([...header.unsupported]).toEqual([]);
    for (const { name, dtype, shape, bytes: stored } of tensors) {
      const info = header.tensors.get(name)!;
      expect(info).toMatchObject({ dtype, shape, byteLength: stored.length });
      expect(bytes.subarray(info.offset, info.offset + info.byteLength)).toEqual(stored);
      if (name.startsWith('matrix')) expect(info.offset % 64).toBe(0);
    }
  });

  test('are lists of bytes to readers who do not look at the metadata', () => {
    const json = readFileSync(join(folder, 'packed.safetensors'));
    const header = JSON.parse(json.toString('utf8', 8, 8 + Number(json.readBigUInt64LE(0)))) as Record<string, unknown>;
    const byteLength = matrixBytes('int4', 17, 128);
    expect(header['matrix.int4']).toMatchObject({ dtype: 'U8', shape: [byteLength] });
    expect(readdirSync(folder)).toEqual(['packed.safetensors']);
  });
});

const size = matrixBytes('int4', 16, 32)!;
const named = (entry: unknown, dtype = 'U8', shape: number[] = [size]) =>
  safetensorsOf([{ name: 'w', dtype, shape, bytes: new Uint8Array(size) }], {
    [PACKED_KEY]: typeof entry === 'string' ? entry : JSON.stringify({ w: entry }),
  });
const good = { dtype: 'int4', shape: [16, 32] };

describe('a safetensors file is refused whose metadata', () => {
  const cases: readonly (readonly [what: string, bytes: Uint8Array, ...message: string[]])[] = [
    ['are no JSON', named('{'), 'expected'],
    ['name a tensor that is not there', named('{"v":{"dtype":"int4","shape":[16,32]}}'), 'packed tensor v', 'U8'],
    ['name a tensor of another type', named(good, 'I8'), 'packed tensor w', '"I8"'],
    ['name a tensor with two dimensions', named(good, 'U8', [2, size / 2]), 'packed tensor w', 'a list of U8'],
    ['say nothing of a tensor', named(7), 'packed tensor w is 7', 'expected an object'],
    ['name a type of another format', named({ ...good, dtype: 'q4_0' }), 'dtype is "q4_0"', 'int4_g64'],
    ['name no type', named({ shape: [16, 32] }), 'dtype is missing'],
    ['name a type like a method', named({ ...good, dtype: 'toString' }), 'dtype is "toString"'],
    ['say no shape', named({ dtype: 'int4' }), 'shape is missing'],
    ['say three dimensions', named({ dtype: 'int4', shape: [1, 16, 32] }), 'shape is a list of 3'],
    ['say a negative size', named({ dtype: 'int4', shape: [-16, 32] }), 'shape'],
    ['say a size beyond the safe integers', named({ dtype: 'int4', shape: [2 ** 60, 32] }), 'shape'],
    ['say fewer rows than there are', named({ dtype: 'int4', shape: [32, 32] }), 'size is 384', 'has 768'],
    ['say rows that groups do not divide', named({ dtype: 'int4_g64', shape: [16, 32] }), 'size is 384', 'divide'],
  ];
  for (const [what, bytes, ...message] of cases) {
    test(what, () => expectEngineError(() => read(bytes), 'FORMAT_INVALID', path, ...message));
  }

  test('name a tensor between cache lines', async () => {
    const metadata = JSON.stringify({ [PACKED_KEY]: JSON.stringify({ w: good }) });
    const header = `{"__metadata__":${metadata},"w":{"dtype":"U8","shape":[${size}],"data_offsets":[0,${size}]}}`;
    const padded = header.padEnd(Math.ceil((8 + header.length) / 64) * 64 + 32 - 8);
    await expectEngineError(() => read(rawSafetensors(padded, size)), 'FORMAT_INVALID', 'position', 'multiple of 64');
  });
});
