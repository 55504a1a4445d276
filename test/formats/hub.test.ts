import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { type GgufSource, openModel, openWeights, type SafetensorsSource } from '../../src/formats/hub.js';
import { jsonLimits } from '../../src/formats/json.js';
import { requireTensor } from '../../src/formats/model-file.js';
import { readTensorBytes } from '../../src/formats/tensor-bytes.js';
import { expectEngineError } from './engine-error.js';
import { float32Bytes, type MetadataInput, typed, writeGguf } from './gguf-writer.js';
import { writeSafetensors } from './safetensors-writer.js';

const root = mkdtempSync(join(tmpdir(), 'engine-formats-'));
afterAll(() => rmSync(root, { recursive: true }));

let folder: string;
let count = 0;
beforeEach(() => {
  folder = join(root, String(count++));
  mkdirSync(folder);
});

/** Writes files into the test's folder; paths are relative to it. */
function put(files: Readonly<Record<string, string | Uint8Array | object>>): void {
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    const isRaw = typeof content === 'string' || content instanceof Uint8Array;
    writeFileSync(path, isRaw ? content : JSON.stringify(content));
  }
}

const at = (name: string) => join(folder, name);
const safetensors = (...names: readonly string[]) =>
  writeSafetensors(names.map((name) => ({ name, dtype: 'F32', shape: [2], bytes: float32Bytes([1, 2]) })));
const gguf = (names: readonly string[] = ['w'], metadata: Readonly<Record<string, MetadataInput>> = {}) =>
  writeGguf({
    metadata: { 'general.architecture': 'test', ...metadata },
    tensors: names.map((name) => ({ name, dtype: 'f32', shape: [2], bytes: float32Bytes([3, 4]) })),
  });

describe('a GGUF model', () => {
  test('is known by its first bytes, not by its name', async () => {
    put({ 'model.bin': gguf() });
    const source = (await openModel(at('model.bin'))) as GgufSource;
    expect(source.format).toBe('gguf');
    expect(source.path).toBe(at('model.bin'));
    expect(source.metadata.get('general.architecture')).toBe('test');
    expect(source.tensors.get('w')?.file).toBe(at('model.bin'));
    const { size, mtimeMs } = statSync(at('model.bin'));
    expect([...source.files]).toEqual([[at('model.bin'), { size, mtimeMs }]]);
  });

  test('may be given by a relative path; paths in the result are absolute', async () => {
    put({ 'a.gguf': gguf() });
    const source = await openModel(relative(process.cwd(), at('a.gguf')));
    expect(source.path).toBe(at('a.gguf'));
  });

  test('may be the only one of a folder, beside a configuration and a vision projector', async () => {
    put({ 'a.gguf': gguf(), 'config.json': {}, 'mmproj-a.gguf': gguf(), 'README.md': '' });
    expect((await openModel(folder)).path).toBe(at('a.gguf'));
  });

  test('may be split into files; any one of them opens all', async () => {
    const part = (no: number, names: readonly string[]) =>
      gguf(names, {
        'split.no': typed('uint16', no),
        'split.count': typed('uint16', 2),
        'split.tensors.count': typed('int32', 3),
        ...(no === 0 && { first: true }),
      });
    put({ 'm-00001-of-00002.gguf': part(0, ['a', 'b']), 'm-00002-of-00002.gguf': part(1, ['c']) });
    for (const path of [folder, at('m-00001-of-00002.gguf'), at('m-00002-of-00002.gguf')]) {
      const source = (await openModel(path)) as GgufSource;
      expect([...source.tensors.keys()]).toEqual(['a', 'b', 'c']);
      expect(source.tensors.get('c')?.file).toBe(at('m-00002-of-00002.gguf'));
      expect(source.metadata.get('first')).toBe(true);
      expect(source.files.size).toBe(2);
    }
  });

  const split = (no: number, total: number, names: readonly string[] = [`t${no}`]) =>
    gguf(names, { 'split.no': typed('uint16', no), 'split.count': typed('uint16', total) });

  test('a split with a file missing is refused', async () => {
    put({ 'm-00001-of-00002.gguf': split(0, 2) });
    await expectEngineError(() => openModel(folder), 'FILE_NOT_FOUND', 'm-00002-of-00002.gguf');
  });

  test('a split whose name does not fit is refused', async () => {
    put({ 'renamed.gguf': split(0, 2) });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'renamed.gguf', '-00001-of-00002.gguf');
  });

  test('a split with one tensor in two files is refused', async () => {
    put({ 'm-00001-of-00002.gguf': split(0, 2, ['w']), 'm-00002-of-00002.gguf': split(1, 2, ['w']) });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'tensor name is "w"', 'another file');
  });

  test('a split whose files are swapped or of different splits is refused', async () => {
    put({ 'm-00001-of-00002.gguf': split(1, 2), 'm-00002-of-00002.gguf': split(0, 2) });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'split.no is 1', 'expected 0');
    put({ 'm-00001-of-00002.gguf': split(0, 2), 'm-00002-of-00002.gguf': split(1, 3) });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'split.count is 3', 'expected 2');
  });

  test('a split of too many files is refused', async () => {
    put({ 'm-00001-of-60000.gguf': split(0, 60_000) });
    await expectEngineError(() => openModel(folder), 'CONFIG_INVALID', 'split.count is 60000', '1024');
  });
});

describe('a safetensors model', () => {
  test('of one file brings the JSON that lies beside it', async () => {
    put({
      'model.safetensors': safetensors('w'),
      'config.json': { model_type: 'test' },
      'tokenizer.json': {},
      'tokenizer_config.json': { chat_template: 'x' },
      'generation_config.json': { temperature: 0.5 },
    });
    for (const path of [folder, at('model.safetensors')]) {
      const source = (await openModel(path)) as SafetensorsSource;
      expect(source.format).toBe('safetensors');
      expect(source.directory).toBe(folder);
      expect(source.config).toEqual({ model_type: 'test' });
      expect(source.tokenizerJson).toBe(at('tokenizer.json'));
      expect(source.tokenizerConfig).toEqual({ chat_template: 'x' });
      expect(source.generationConfig).toEqual({ temperature: 0.5 });
      expect([...source.files.keys()]).toEqual([at('model.safetensors')]);
      expect(source.tensors.get('w')).toMatchObject({ dtype: 'f32', shape: [2] });
    }
  });

  test('may have any name, and no tokenizer', async () => {
    put({ 'weights.safetensors': safetensors('w'), 'config.json': {} });
    const source = (await openModel(folder)) as SafetensorsSource;
    expect(source).not.toHaveProperty('tokenizerJson');
    expect(source).not.toHaveProperty('tokenizerConfig');
  });

  const index = (map: Readonly<Record<string, unknown>>) => ({
    'model.safetensors.index.json': { weight_map: map },
    'config.json': {},
  });
  const [first, second] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const;

  test('of several files is put together by its index, given the folder or any file', async () => {
    put({
      ...index({ a: first, b: second, c: second }),
      [first]: safetensors('a'),
      [second]: safetensors('b', 'c', 'unlisted'),
    });
    for (const path of [folder, at(first), at(second)]) {
      const source = await openModel(path);
      expect([...source.tensors.keys()].sort()).toEqual(['a', 'b', 'c']);
      expect(source.tensors.get('c')?.file).toBe(at(second));
      expect(source.files.size).toBe(2);
    }
  });

  test('may consist of links, as in the cache of the hub', async () => {
    const blobs = join(root, `blobs-${count}`);
    mkdirSync(blobs);
    writeFileSync(join(blobs, 'abc'), safetensors('a'));
    put(index({ a: first }));
    symlinkSync(join(blobs, 'abc'), at(first));
    expect((await openModel(folder)).tensors.size).toBe(1);
  });

  test('with an index that promises too much is refused', async () => {
    put({ ...index({ a: first, b: first }), [first]: safetensors('a') });
    await expectEngineError(() => openModel(folder), 'TENSOR_MISSING', first, 'b');
  });

  test('with a file missing is refused', async () => {
    put({ ...index({ a: first, b: second }), [first]: safetensors('a') });
    await expectEngineError(() => openModel(folder), 'FILE_NOT_FOUND', second);
  });

  for (const name of [
    '../secret.safetensors',
    '/etc/secret.safetensors',
    '..\\secret.safetensors',
    'C:secret.safetensors',
    'a/b.safetensors',
    'secret\0.safetensors',
    '..',
    '',
    'passwd',
    `${'x'.repeat(300)}.safetensors`,
  ]) {
    test(`with a file called ${JSON.stringify(name.slice(0, 40))} in its index is refused`, async () => {
      put({ ...index({ w: name }), 'a.safetensors': safetensors('a') });
      writeFileSync(join(root, 'secret.safetensors'), safetensors('w'));
      await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'index.json', 'weight_map.w', 'same folder');
    });
  }

  test('with a broken index is refused', async () => {
    put({ ...index({}), 'a.safetensors': safetensors('a') });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'weight_map is "empty"');
    put(index({ w: 7 }));
    await expectEngineError(() => openModel(folder), 'CONFIG_INVALID', 'weight_map.w is 7');
    put({ 'model.safetensors.index.json': '{}' });
    await expectEngineError(() => openModel(folder), 'CONFIG_INVALID', 'weight_map is missing');
  });

  test('with more than 1,024 files in its index is refused', async () => {
    const map = Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [`w${i}`, `${i}.safetensors`]));
    put({ ...index(map), 'a.safetensors': safetensors('a') });
    await expectEngineError(() => openModel(folder), 'FORMAT_LIMIT', 'number of files is 1025');
  });

  test('without a configuration is refused, unless only its weights are asked for', async () => {
    put({ 'adapter_model.safetensors': safetensors('w') });
    await expectEngineError(() => openModel(folder), 'FILE_NOT_FOUND', 'configuration', at('config.json'));
    expect(openWeights(at('adapter_model.safetensors')).tensors.size).toBe(1);
  });

  test('with a configuration that is damaged or too large is refused', async () => {
    put({ 'model.safetensors': safetensors('w'), 'config.json': '{"a":1' });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', at('config.json'), 'character 6 is missing');
    put({ 'config.json': '[]' });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'expected an object');
    put({ 'config.json': new Uint8Array(jsonLimits.fileBytes + 1) });
    await expectEngineError(() => openModel(folder), 'FORMAT_LIMIT', at('config.json'), 'file size is 33554433');
    put({ 'config.json': {}, 'tokenizer_config.json': '{' });
    await expectEngineError(() => openModel(folder), 'FORMAT_INVALID', 'tokenizer_config.json');
  });
});

describe('what is no model is one clear error', () => {
  test('an empty path', () => expectEngineError(() => openModel(''), 'OPTION_INVALID', 'model is ""', 'a path'));

  test('a path with NUL', () => expectEngineError(() => openModel('a\0b'), 'FILE_UNREADABLE', 'NUL'));

  test('a path that is too long', () =>
    expectEngineError(() => openModel('x'.repeat(5000)), 'FILE_UNREADABLE', 'too long'));

  test('a missing file', () => expectEngineError(() => openModel(at('no.gguf')), 'FILE_NOT_FOUND', at('no.gguf')));

  test('a path through a file', async () => {
    put({ file: 'x' });
    await expectEngineError(() => openModel(at('file/model.gguf')), 'FILE_NOT_FOUND', at('file/model.gguf'));
  });

  test('an empty folder', () => expectEngineError(() => openModel(folder), 'MODEL_NOT_FOUND', folder));

  test('a folder with a configuration only', async () => {
    put({ 'config.json': {} });
    await expectEngineError(() => openModel(folder), 'MODEL_NOT_FOUND', folder);
  });

  test('a folder with several models', async () => {
    put({ 'q4.gguf': gguf(), 'q8.gguf': gguf() });
    await expectEngineError(() => openModel(folder), 'MODEL_AMBIGUOUS', folder, 'q4.gguf, q8.gguf', 'one of them');
    put({ 'a.safetensors': safetensors('a'), 'b.safetensors': safetensors('b'), 'config.json': {} });
    await expectEngineError(() => openModel(folder), 'MODEL_AMBIGUOUS', 'a.safetensors, b.safetensors');
  });

  test('a folder called like a model file within a folder', async () => {
    mkdirSync(at('model.gguf'));
    await expectEngineError(() => openModel(folder), 'FILE_UNREADABLE', 'it is a folder');
  });

  test('an empty file', async () => {
    put({ 'a.gguf': '' });
    await expectEngineError(() => openModel(at('a.gguf')), 'FORMAT_INVALID', at('a.gguf'), 'empty');
  });

  test.each([
    ['text', 'hello, world, this is no model at all'],
    ['one byte', 'G'],
    ['a zip archive, as PyTorch writes', 'PK\x03\x04aaaaaaaaaaaaaaaaaaaaaa'],
    ['zeros', '\0'.repeat(100)],
  ])('a file of another format: %s', async (_name, content) => {
    put({ 'model.gguf': content });
    await expectEngineError(() => openModel(at('model.gguf')), 'FORMAT_UNKNOWN', at('model.gguf'));
  });

  test('a Git LFS pointer', async () => {
    put({ 'model.gguf': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' });
    await expectEngineError(() => openModel(at('model.gguf')), 'FORMAT_INVALID', 'Git LFS pointer', 'git lfs pull');
  });

  test('a model file cut off at any byte', async () => {
    for (const bytes of [gguf(), safetensors('w')]) {
      for (let length = 0; length < bytes.length; length += 7) {
        put({ 'config.json': {}, model: bytes.slice(0, length) });
        const code = length === 0 || length > 8 ? 'FORMAT_INVALID' : null;
        const error: unknown = await openModel(at('model')).catch((e: unknown) => e);
        expect(error).toMatchObject({ name: 'EngineError', ...(code !== null && { code }) });
      }
    }
  });

  test.skipIf(process.platform === 'win32')('a named pipe, without waiting for it', async () => {
    execFileSync('mkfifo', [at('pipe.gguf')]);
    await expectEngineError(() => openModel(at('pipe.gguf')), 'FILE_UNREADABLE', 'not a regular file');
    put({ 'model.safetensors': safetensors('w') });
    execFileSync('mkfifo', [at('config.json')]);
    await expectEngineError(() => openModel(at('model.safetensors')), 'FILE_UNREADABLE', 'not a regular file');
  });

  test.skipIf(process.platform === 'win32')('a device', () =>
    expectEngineError(() => openModel('/dev/zero'), 'FILE_UNREADABLE', '/dev/zero', 'not a regular file'),
  );

  test.skipIf(process.platform === 'win32')('a link to itself', async () => {
    symlinkSync(at('loop.gguf'), at('loop.gguf'));
    await expectEngineError(() => openModel(at('loop.gguf')), 'FILE_UNREADABLE', 'loop');
  });
});

describe('the bytes of a tensor', () => {
  test('are read from the file', async () => {
    put({ 'a.gguf': gguf(['a', 'b']) });
    const source = await openModel(at('a.gguf'));
    expect(readTensorBytes(requireTensor(source, 'b'), source.files)).toEqual(float32Bytes([3, 4]));
  });

  test('are refused after the file has changed', async () => {
    put({ 'a.gguf': gguf() });
    const source = await openModel(at('a.gguf'));
    const info = requireTensor(source, 'w');
    utimesSync(at('a.gguf'), new Date(0), new Date(0));
    await expectEngineError(() => readTensorBytes(info, source.files), 'FILE_CHANGED', at('a.gguf'));
    appendFileSync(at('a.gguf'), 'x');
    await expectEngineError(() => readTensorBytes(info, source.files), 'FILE_CHANGED', at('a.gguf'));
    rmSync(at('a.gguf'));
    await expectEngineError(() => readTensorBytes(info, source.files), 'FILE_NOT_FOUND', at('a.gguf'));
    await expectEngineError(() => readTensorBytes(info, new Map()), 'FILE_NOT_FOUND');
  });
});
