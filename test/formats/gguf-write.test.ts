import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { withFile } from '../../src/formats/byte-source.js';
import { readGguf } from '../../src/formats/gguf.js';
import type { GgufValueToWrite } from '../../src/formats/gguf-encode.js';
import { type GgufTensorToWrite, metadataToCopy, writeGguf } from '../../src/formats/gguf-writer.js';
import { expectEngineError } from './engine-error.js';

const newFolder = () => mkdtempSync(join(tmpdir(), 'engine-gguf-write-'));
const read = (path: string) => withFile(path, 'model', (file) => readGguf(file));

const values: ReadonlyMap<string, GgufValueToWrite> = new Map<string, GgufValueToWrite>([
  ['u8', { type: 'uint8', value: 255 }],
  ['i8', { type: 'int8', value: -128 }],
  ['u16', { type: 'uint16', value: 65_535 }],
  ['i16', { type: 'int16', value: -32_768 }],
  ['u32', { type: 'uint32', value: 2 ** 32 - 1 }],
  ['i32', { type: 'int32', value: -(2 ** 31) }],
  ['f32', { type: 'float32', value: 0.5 }],
  ['f64', { type: 'float64', value: 1e300 }],
  ['u64', { type: 'uint64', value: 2n ** 64n - 1n }],
  ['small u64', { type: 'uint64', value: 7 }],
  ['i64', { type: 'int64', value: -(2n ** 63n) }],
  ['yes', { type: 'bool', value: true }],
  ['no', { type: 'bool', value: false }],
  ['text', { type: 'string', value: 'Größe 🦊 \u0000 \n' }],
  ['bytes', { type: 'array', of: 'uint8', value: [1, 255] }],
  ['floats', { type: 'array', of: 'float32', value: Float32Array.of(0.25, -3) }],
  ['longs', { type: 'array', of: 'int64', value: [1, -(2n ** 60n)] }],
  ['flags', { type: 'array', of: 'bool', value: [true, false] }],
  ['words', { type: 'array', of: 'string', value: ['', 'ä', 'x'.repeat(100_000)] }],
  ['nested', { type: 'array', of: 'array', value: [{ type: 'array', of: 'uint16', value: [3] }] }],
]);

const tensors: readonly GgufTensorToWrite[] = [
  { name: 'a', dtype: 'q4_0', shape: [3, 32], byteLength: 54 },
  { name: 'b', dtype: 'f32', shape: [2], byteLength: 8 },
  { name: 'c', dtype: 'f16', shape: [2, 1, 3], byteLength: 12 },
];
const content = tensors.map(({ byteLength }, t) => Uint8Array.from({ length: byteLength }, (_, i) => 16 * t + i));

function* inPieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let i = 0; i < bytes.length; i += 10) yield bytes.subarray(i, i + 10);
}

describe('writing GGUF', () => {
  test('our reader finds every value with its type, and every tensor', async () => {
    const folder = newFolder();
    const path = join(folder, 'model.gguf');
    const progress: number[][] = [];
    await writeGguf(path, values, tensors, (index) => inPieces(content[index]!), {
      onProgress: (...bytes) => progress.push(bytes),
    });
    expect(readdirSync(folder)).toEqual(['model.gguf']);
    expect(progress.at(-1)).toEqual([74, 74]);

    const header = read(path);
    expect(header.version).toBe(3);
    expect(Object.fromEntries(header.metadata)).toEqual({
      u8: 255,
      i8: -128,
      u16: 65_535,
      i16: -32_768,
      u32: 2 ** 32 - 1,
      i32: -(2 ** 31),
      f32: 0.5,
      f64: 1e300,
      u64: 2n ** 64n - 1n,
      'small u64': 7,
      i64: -(2n ** 63n),
      yes: true,
      no: false,
      text: 'Größe 🦊 \u0000 \n',
      bytes: Uint8Array.of(1, 255),
      floats: Float32Array.of(0.25, -3),
      longs: [1, -(2n ** 60n)],
      flags: [true, false],
      words: ['', 'ä', 'x'.repeat(100_000)],
      nested: [Uint16Array.of(3)],
      'general.alignment': 64,
    });
    const file = readFileSync(path);
    for (const [index, { name, dtype, shape, byteLength }] of tensors.entries()) {
      const tensor = header.tensors.get(name)!;
      expect(tensor).toMatchObject({ dtype, shape, byteLength });
      expect(tensor.offset % 64).toBe(0);
      const stored = file.subarray(tensor.offset, tensor.offset + byteLength);
      expect(new Uint8Array(stored)).toEqual(content[index]);
    }
  });

  test('metadata of another file keep their types and bytes, but for the alignment', async () => {
    const folder = newFolder();
    const [first, second, third] = ['1', '2', '3'].map((name) => join(folder, name)) as [string, string, string];
    const empty = { alignment: 256 };
    await writeGguf(first, values, [], () => [], empty);
    await writeGguf(second, metadataToCopy(first), [], () => [], empty);
    expect(readFileSync(second).equals(readFileSync(first))).toBe(true);
    await writeGguf(third, metadataToCopy(first), [], () => [], { alignment: 8 });
    expect(read(third).metadata.get('general.alignment')).toBe(8);
  });

  test('bytes may come asynchronously', async () => {
    const path = join(newFolder(), 'model.gguf');
    await writeGguf(path, new Map(), tensors.slice(0, 1), async function* (index) {
      await Promise.resolve();
      yield* inPieces(content[index]!);
    });
    expect(read(path).tensors.size).toBe(1);
  });

  test('an abort leaves what was there before, and nothing else', async () => {
    const folder = newFolder();
    const path = join(folder, 'model.gguf');
    writeFileSync(path, 'before');
    const { signal, abort } = abortable();
    const pieces = function* (index: number) {
      if (index === 1) abort();
      yield content[index]!;
    };
    await expectEngineError(() => writeGguf(path, values, tensors, pieces, { signal }), 'ABORTED');
    expect(readdirSync(folder)).toEqual(['model.gguf']);
    expect(readFileSync(path, 'utf8')).toBe('before');
  });

  test('an error of the tensor source, too few and too many bytes leave nothing', async () => {
    const folder = newFolder();
    const path = join(folder, 'model.gguf');
    const fails = () => {
      throw new Error('no bytes');
    };
    await expect(writeGguf(path, values, tensors, fails)).rejects.toThrow('no bytes');
    const short = () => [new Uint8Array(1)];
    await expectEngineError(() => writeGguf(path, values, tensors, short), 'INTERNAL', 'a has 1 bytes instead of 54');
    const long = () => [new Uint8Array(55)];
    await expectEngineError(() => writeGguf(path, values, tensors, long), 'INTERNAL', 'a has more than its 54 bytes');
    expect(readdirSync(folder)).toEqual([]);
  });

  test('a value that its type cannot hold is our mistake', async () => {
    const path = join(newFolder(), 'model.gguf');
    const metadata = new Map([['x', { type: 'uint8', value: 256 } as const]]);
    await expectEngineError(() => writeGguf(path, metadata, [], () => []), 'INTERNAL', '256');
  });

  test('a path that cannot be written is named with the reason', async () => {
    const folder = newFolder();
    mkdirSync(join(folder, 'folder'));
    const write = (name: string) => writeGguf(join(folder, name), values, tensors, (index) => [content[index]!]);
    await expectEngineError(() => write('missing/model.gguf'), 'FILE_UNWRITABLE', 'missing/model.gguf', 'folder');
    await expectEngineError(() => write('folder'), 'FILE_UNWRITABLE', 'it is a folder');
    expect(readdirSync(folder)).toEqual(['folder']);
  });

  test('a full disk leaves nothing', async ({ skip }) => {
    const disk = smallDisk();
    if (disk === null) return skip('no file system may be mounted here');
    const path = join(disk.folder, 'model.gguf');
    const byteLength = 1 << 20;
    const large: GgufTensorToWrite[] = [{ name: 'large', dtype: 'f32', shape: [byteLength / 4], byteLength }];
    const write = () => writeGguf(path, values, large, () => [new Uint8Array(byteLength)]);
    try {
      await expectEngineError(write, 'FILE_UNWRITABLE', path, 'no space is left');
      expect(readdirSync(disk.folder)).toEqual([]);
    } finally {
      disk.unmount();
    }
  });
});

function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}

/** A file system of 256 KiB, or null where this user may not mount one. */
function smallDisk(): { folder: string; unmount: () => void } | null {
  const folder = newFolder();
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder]);
  return status === 0 ? { folder, unmount: () => void execFileSync('umount', [folder]) } : null;
}
