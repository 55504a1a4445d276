import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect } from 'vitest';
import { memorySource } from '../../src/formats/byte-source.js';
import { Fields } from '../../src/formats/fields.js';
import { readGguf } from '../../src/formats/gguf.js';
import { type GgufSource, openModel, openWeights, type SafetensorsSource } from '../../src/formats/hub.js';
import { requireTensor } from '../../src/formats/model-file.js';
import { readTensorBytes } from '../../src/formats/tensor-bytes.js';
import { itWithData } from '../shared-data.js';
import { cpuTime } from './cpu-time.js';

const filesBelow = (folder: string, extension: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension))
    .map((name) => join(folder, name));

describe('files written by others', () => {
  itWithData('models', 'every GGUF file is read, to its last byte', async (folder) => {
    const paths = filesBelow(folder, '.gguf');
    expect(paths.length).toBeGreaterThan(40);
    for (const path of paths) {
      const source = (await openModel(path)) as GgufSource;
      const fields = new Fields(path, source.metadata);
      const architecture = fields.string('general.architecture');
      expect(fields.uint(`${architecture}.block_count`, { min: 1 })).toBeGreaterThan(0);
      // ggml pads after each tensor, the last one too.
      const end = Math.max(...[...source.tensors.values()].map((info) => info.offset + info.byteLength));
      const { size } = statSync(path);
      expect(end, path).toBeLessThanOrEqual(size);
      expect(end, path).toBeGreaterThan(size - 32);
    }
  });

  itWithData('models', 'every safetensors file is read', async (folder) => {
    const paths = filesBelow(folder, '.safetensors');
    expect(paths.length).toBeGreaterThan(60);
    for (const path of paths) {
      const { tensors, unsupported } = openWeights(path);
      expect(tensors.size + (unsupported?.size ?? 0), path).toBeGreaterThan(0);
    }
  });

  itWithData('models/hf-archs', 'every folder with a configuration opens as a model', async (folder) => {
    const folders = filesBelow(folder, 'config.json').filter((path) => path.endsWith('/config.json'));
    expect(folders.length).toBeGreaterThan(50);
    for (const path of folders) {
      const source = (await openModel(dirname(path))) as SafetensorsSource;
      expect(new Fields(path, source.config).string('model_type')).not.toBe('');
      expect(source.tensors.size).toBeGreaterThan(0);
    }
  });

  itWithData('models/hf-archs/llama-sharded', 'a sharded model has the tensors of all its files', async (folder) => {
    const source = await openModel(folder);
    expect(source.files.size).toBe(3);
    expect(new Set([...source.tensors.values()].map((info) => info.file)).size).toBe(3);
  });

  itWithData('models', 'the same weights as GGUF and as safetensors have the same bytes', async (folder) => {
    const gguf = await openModel(join(folder, 'stories260K-gguf/stories260K-f32.gguf'));
    const hub = await openModel(join(folder, 'stories260K-hf'));
    const pairs = [
      ['token_embd.weight', 'model.embed_tokens.weight'],
      ['output_norm.weight', 'model.norm.weight'],
      ['blk.3.ffn_down.weight', 'model.layers.3.mlp.down_proj.weight'],
    ] as const;
    for (const [a, b] of pairs) {
      const [left, right] = [requireTensor(gguf, a), requireTensor(hub, b)];
      expect(left.shape).toEqual(right.shape);
      expect(readTensorBytes(left, gguf.files)).toEqual(readTensorBytes(right, hub.files));
    }
  });

  itWithData('tokenizers/llamacpp_vocab', 'every vocabulary is read, in well under 300 ms', (folder) => {
    const names = readdirSync(folder).filter((name) => /\.gguf(\.gz)?$/.test(name));
    expect(names).toHaveLength(10);
    for (const name of names) {
      const bytes = readFileSync(join(folder, name));
      const source = memorySource(name, name.endsWith('.gz') ? gunzipSync(bytes) : bytes);
      const ms = cpuTime(() => {
        const tokens = readGguf(source).metadata.get('tokenizer.ggml.tokens');
        expect(Array.isArray(tokens) && tokens.length > 30_000, name).toBe(true);
      });
      expect(ms, name).toBeLessThan(300);
    }
  });
});
