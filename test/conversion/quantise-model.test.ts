import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { nativeInfo } from '../../src/backend/native.js';
import { ReferencePanels } from '../../src/conversion/panel-quantiser.js';
import { type QuantiseOptions, quantiseModel } from '../../src/conversion/quantise-model.js';
import { openModel } from '../../src/formats/hub.js';
import type { QuantisedTypes } from '../../src/model/quantised-types.js';
import { expectClose } from '../backend/compare.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { expectEngineError } from '../formats/engine-error.js';
import { writeGguf } from '../formats/gguf-writer.js';
import { type TestBackend, testBackends } from '../model/backends.js';
import { ModelRun } from '../model/run-model.js';
import { tinyGgufShapes, tinyMetadata } from '../model/sources.js';
import { tinyGpt2, tinyLlama, writeCheckpoint } from '../model/tiny-checkpoint.js';
import { itWithData } from '../shared-data.js';
import { randomMatrix } from '../tensor/random-blocks.js';

const folder = temporaryFolder();
let count = 0;
const fresh = (name = 'out') => join(folder, `${name}-${count++}`);
const [reference, native] = testBackends;
const int8 = { layers: 'int8', head: 'int8' } as const;
const int4 = { layers: 'int4', head: 'int8' } as const;
const ids = [1, 5, 30, 7, 90, 2, 2, 61];

/** Quantises in TypeScript, so that these tests need no addon. */
async function quantise(input: string, output: string, types: QuantisedTypes, options: Partial<QuantiseOptions> = {}) {
  const quantiser = new ReferencePanels((await openModel(input)).files);
  return quantiseModel(input, output, { types, threads: 1, quantiser, ...options });
}

async function logitsOf(path: string, types?: QuantisedTypes, tokens: readonly number[] = ids): Promise<number[][]> {
  const run = await ModelRun.open(reference!, path, 'f32', types);
  const logits = (await run.logits(tokens)).map((row) => [...row]);
  await run.dispose();
  return logits;
}

/** Mean over positions of KL(p ‖ q), in nats. */
function meanKl(p: readonly number[][], q: readonly number[][]): number {
  const logSoftmax = (row: readonly number[]) => {
    const max = Math.max(...row);
    const logSum = Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0)) + max;
    return row.map((value) => value - logSum);
  };
  const kl = p.map((row, t) => {
    const [expected, actual] = [logSoftmax(row), logSoftmax(q[t]!)];
    return expected.reduce((sum, value, i) => sum + Math.exp(value) * (value - actual[i]!), 0);
  });
  return kl.reduce((sum, value) => sum + value, 0) / kl.length;
}

async function dtypesOf(path: string): Promise<Record<string, string>> {
  const { tensors } = await openModel(path);
  return Object.fromEntries([...tensors.values()].map(({ name, dtype }) => [name, dtype]));
}

const llama = (changes: Readonly<Record<string, unknown>> = {}) => writeCheckpoint(fresh('llama'), tinyLlama(changes));

const qkvShapes = Object.fromEntries(
  Object.entries(tinyGgufShapes)
    .filter(([name]) => !/attn_[kv]\./.test(name))
    .map(([name, shape]) =>
      name.includes('attn_q.') ? [name.replace('attn_q', 'attn_qkv'), [64, 32]] : [name, shape],
    ),
);

/** A Llama in one GGUF file, with matrices of this type, or in parts. */
function tinyGguf(shapes: typeof tinyGgufShapes = tinyGgufShapes): string {
  const path = `${fresh('tiny')}.gguf`;
  const tensors = Object.entries(shapes).map(([name, shape], i) => {
    const [rows, columns] = shape.length === 2 ? shape : [1, shape[0]];
    const dtype = shape.length === 2 && columns === 32 ? ('q8_0' as const) : ('f32' as const);
    return { name, shape, dtype, bytes: randomMatrix(dtype, rows!, columns!, i) };
  });
  writeFileSync(path, writeGguf({ metadata: tinyMetadata, tensors }));
  return path;
}

describe('a quantised file gives the logits of quantising while loading', () => {
  test.each([
    ['int8', 'an untied head', () => llama(), int8],
    ['int4', 'an untied head', () => llama(), int4],
    ['int4', 'a tied head', () => llama({ tie_word_embeddings: true }), int4],
    [
      'int4_g64',
      'rows that 64 divides',
      () => llama({ hidden_size: 64, head_dim: 16 }),
      { layers: 'int4_g64', head: 'int4_g64' },
    ],
    ['int4_g128', 'rows that 128 does not divide', () => llama(), { layers: 'int4_g128', head: null }],
    [
      'int4_sym',
      'query, key and value in one, transposed',
      () => writeCheckpoint(fresh('gpt2'), tinyGpt2()),
      { layers: 'int4_sym', head: 'int4_sym' },
    ],
    ['int4', 'query, key and value in one, of q8_0', () => tinyGguf(qkvShapes), int4],
  ] as const)('%s, %s', async (_, __, make, types) => {
    const input = make();
    const output = input.endsWith('.gguf') ? `${fresh()}.gguf` : fresh();
    await quantise(input, output, types);
    const logits = await logitsOf(output);
    expect(logits).toEqual(await logitsOf(input, types));
    expect(logits).not.toEqual(await logitsOf(input));
    expect(meanKl(await logitsOf(input), logits)).toBeLessThan(0.2);
  });

  itWithData('models/hf-archs/llama-sharded', 'int4, weights in several files', async (input) => {
    const output = fresh();
    await quantise(input, output, int4);
    expect(readdirSync(output).filter((name) => name.includes('safetensors'))).toEqual(['model.safetensors']);
    expect(await logitsOf(output)).toEqual(await logitsOf(input, int4));
  });
});

describe('tensors of the quantised file', () => {
  test('are matrices of the layers in the type, embeddings and head in int8, vectors in f32', async () => {
    const [input, output] = [llama(), fresh()];
    const summary = await quantise(input, output, int4);
    const dtypes = await dtypesOf(output);
    expect(dtypes['model.layers.0.self_attn.q_proj.weight']).toBe('int4');
    expect(dtypes['model.embed_tokens.weight']).toBe('int8');
    expect(dtypes['lm_head.weight']).toBe('int8');
    expect(dtypes['model.norm.weight']).toBe('f32');
    // Rows of 48 values.
    expect(dtypes['model.layers.1.mlp.down_proj.weight']).toBe('f32');
    expect(summary.exceptions.map(({ tensor, columns, dtype }) => `${tensor} ${columns} ${dtype}`)).toEqual([
      'model.layers.0.mlp.down_proj.weight 48 f32',
      'model.layers.1.mlp.down_proj.weight 48 f32',
    ]);
    const { total } = summary;
    expect(total.bytesAfter).toBeLessThan(total.bytesBefore / 2);
    expect(total.relativeError).toBeGreaterThan(0.02);
    expect(total.relativeError).toBeLessThan(0.1);
    expect(summary.types.find(({ dtype }) => dtype === 'f32')!.relativeError).toBe(0);
  });

  test('are int8 where 32 divides the rows and the group does not', async () => {
    const output = fresh();
    const { exceptions } = await quantise(llama(), output, { layers: 'int4_g128', head: 'int8' });
    expect((await dtypesOf(output))['model.layers.0.self_attn.q_proj.weight']).toBe('int8');
    expect(exceptions).toHaveLength(2);
  });

  test('are one for a tied head, which is not stored a second time', async () => {
    const model = tinyLlama({ tie_word_embeddings: true });
    const embedding = model.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!;
    const tensors = [...model.tensors, { ...embedding, name: 'lm_head.weight' }];
    const input = writeCheckpoint(fresh('tied'), { ...model, tensors });
    const output = fresh();
    await quantise(input, output, int4);
    const dtypes = await dtypesOf(output);
    expect(dtypes['model.embed_tokens.weight']).toBe('int8');
    expect(dtypes).not.toHaveProperty('lm_head.weight');
  });

  test('keep their type where the head is to be kept, and learned positions theirs', async () => {
    const [input, output] = [writeCheckpoint(fresh('gpt2'), tinyGpt2()), fresh()];
    await quantise(input, output, { layers: 'int8', head: null });
    const dtypes = await dtypesOf(output);
    expect(dtypes['transformer.wte.weight']).toBe('f32');
    expect(dtypes['transformer.wpe.weight']).toBe('f32');
    expect(dtypes['transformer.h.0.attn.c_attn.weight']).toBe('int8');
    // Stored as [outputs, inputs] now.
    expect((await openModel(output)).tensors.get('transformer.h.0.mlp.c_fc.weight')!.shape).toEqual([128, 32]);
  });

  test('stay unquantised where parts of a stacked matrix start within a panel', async () => {
    const shapes = { ...qkvShapes, 'blk.0.attn_qkv.weight': [32 + 8 + 8, 32], 'blk.1.attn_qkv.weight': [48, 32] };
    const input = tinyGguf(shapes);
    const bytes = readFileSync(input);
    // One head of keys and values of 8 values.
    const at = bytes.indexOf('llama.attention.head_count_kv') + 'llama.attention.head_count_kv'.length + 4;
    expect(bytes.readUInt8(at)).toBe(2);
    bytes.writeUInt8(1, at);
    writeFileSync(input, bytes);
    const output = `${fresh()}.gguf`;
    await quantise(input, output, int4);
    expect((await dtypesOf(output))['blk.0.attn_qkv.weight']).toBe('q8_0');
    expect(await logitsOf(output)).toEqual(await logitsOf(input, int4));
  });

  test('of a GGUF file keep their metadata, which say how they were made', async () => {
    const output = `${fresh()}.gguf`;
    await quantise(tinyGguf(), output, int4);
    const model = await openModel(output);
    const metadata = model.format === 'gguf' ? Object.fromEntries(model.metadata) : {};
    expect(metadata).toMatchObject({
      ...{ ...tinyMetadata, 'llama.attention.layer_norm_rms_epsilon': Math.fround(1e-5) },
      'general.alignment': 64,
      'general.file_type': 10004,
      'general.quantization_version': 2,
      'engine.quantization.method': 'rtn',
      'engine.quantization.type': 'int4',
      'engine.quantization.head_type': 'int8',
    });
  });

  test('are refused a second time', async () => {
    const output = fresh();
    await quantise(llama(), output, int8);
    await expectEngineError(() => quantise(output, fresh(), int4), 'OPTION_INVALID', '--type is "int4"', 'own types');
  });
});

describe('files beside the weights', () => {
  test('are copied, but for other weights and what is no part of a model', async () => {
    const input = llama();
    const files = {
      'tokenizer.json': '{}',
      'README.md': '# model',
      'notes.txt': '-',
      'model.safetensors.index.json': '',
    };
    for (const [name, text] of Object.entries(files)) if (text !== '') writeFileSync(join(input, name), text);
    const output = fresh();
    await quantise(input, output, int8);
    expect(readdirSync(output).sort()).toEqual(['README.md', 'config.json', 'model.safetensors', 'tokenizer.json']);
    expect(readFileSync(join(output, 'tokenizer.json'), 'utf8')).toBe('{}');
  });
});

describe('an output is refused', () => {
  test('that exists, unless it may be replaced', async () => {
    const input = tinyGguf();
    const output = `${fresh()}.gguf`;
    await quantise(input, output, int8);
    const before = readFileSync(output);
    await expectEngineError(() => quantise(input, output, int4), 'FILE_UNWRITABLE', output, '--force');
    expect(readFileSync(output)).toEqual(before);
    await quantise(input, output, int4, { force: true });
    expect(readFileSync(output).length).toBeLessThan(before.length);
    const checkpoint = fresh();
    await quantise(llama(), checkpoint, int8);
    await expectEngineError(() => quantise(llama(), checkpoint, int4), 'FILE_UNWRITABLE', '--force');
    await quantise(llama(), checkpoint, int4, { force: true });
    expect((await dtypesOf(checkpoint))['model.layers.0.self_attn.q_proj.weight']).toBe('int4');
  });

  test('that is the model itself, under whatever name', async () => {
    const input = tinyGguf();
    const [hard, soft] = [`${fresh()}.gguf`, `${fresh()}.gguf`];
    linkSync(input, hard);
    symlinkSync(input, soft);
    for (const output of [input, hard, soft]) {
      await expectEngineError(
        () => quantise(input, output, int4, { force: true }),
        'FILE_UNWRITABLE',
        'to be quantised',
      );
    }
    const checkpoint = llama();
    const link = fresh();
    symlinkSync(checkpoint, link);
    const weights = fresh();
    mkdirSync(weights);
    linkSync(join(checkpoint, 'model.safetensors'), join(weights, 'model.safetensors'));
    for (const output of [checkpoint, link, weights]) {
      await expectEngineError(
        () => quantise(checkpoint, output, int4, { force: true }),
        'FILE_UNWRITABLE',
        'to be quantised',
      );
    }
  });

  test('whose kind does not fit the model', async () => {
    const [gguf, checkpoint] = [tinyGguf(), llama()];
    await expectEngineError(() => quantise(gguf, `${fresh()}.safetensors`, int8), 'OPTION_INVALID', '.gguf file');
    await expectEngineError(() => quantise(checkpoint, `${fresh()}.gguf`, int8), 'OPTION_INVALID', 'a folder');
    await expectEngineError(() => quantise(gguf, folder, int8), 'FILE_UNWRITABLE', 'it is a folder');
    const file = join(llama(), 'config.json');
    await expectEngineError(() => quantise(checkpoint, file, int8), 'FILE_UNWRITABLE', 'it is a file');
    await expectEngineError(() => quantise(gguf, join(fresh(), 'x.gguf'), int8), 'FILE_UNWRITABLE', 'does not exist');
  });
});

describe('nothing is left behind', () => {
  test('by a weight that is no number', async () => {
    const model = tinyLlama();
    model.tensors.find(({ name }) => name.includes('1.self_attn.k_proj'))!.values[5 * 32 + 3] = Number.NaN;
    const output = fresh();
    const place = ['layers.1.self_attn.k_proj.weight is NaN', 'row 5, column 3'];
    const input = writeCheckpoint(fresh('nan'), model);
    await expectEngineError(() => quantise(input, output, int4), 'WEIGHT_NOT_FINITE', ...place);
    expect(existsSync(output)).toBe(false);
    await expectEngineError(() => logitsOf(input, int4), 'WEIGHT_NOT_FINITE', ...place);
  });

  test('by an abort', async () => {
    const abort = new AbortController();
    const output = `${fresh('aborted')}.gguf`;
    const onProgress = (done: number, total: number) => done > total / 2 && abort.abort();
    const options = { signal: abort.signal, onProgress };
    await expectEngineError(() => quantise(tinyGguf(), output, int4, options), 'ABORTED');
    expect(readdirSync(folder).filter((name) => name.startsWith('aborted'))).toEqual([]);
    await expectEngineError(() => quantise(llama(), output.replace('.gguf', ''), int4, options), 'ABORTED');
    expect(readdirSync(folder).filter((name) => name.startsWith('aborted'))).toEqual([]);
  });
});

test('progress goes up to the whole, tensor by tensor', async () => {
  const seen: string[] = [];
  let last = 0;
  await quantise(tinyGguf(), `${fresh()}.gguf`, int8, {
    onProgress: (done, total, tensor) => {
      expect(done).toBeGreaterThan(last);
      expect(done).toBeLessThanOrEqual(total);
      last = done;
      seen.push(tensor);
    },
  });
  expect(seen).toEqual(Object.keys(tinyGgufShapes));
});

test.skipIf(native!.unavailable !== null)(
  'on native kernels, too, a quantised file has the logits of quantising while loading, close to the reference',
  async () => {
    for (const types of [int8, int4] as const) {
      for (const input of [tinyGguf(), llama(), writeCheckpoint(fresh('gpt2'), tinyGpt2())]) {
        const output = input.endsWith('.gguf') ? `${fresh()}.gguf` : fresh();
        await quantiseModel(input, output, { types, threads: 2 });
        for (const activations of ['f32', 'q8'] as const) {
          const logits = async (backend: TestBackend, path: string, atLoad?: QuantisedTypes) => {
            const run = await ModelRun.open(backend, path, activations, atLoad);
            const rows = (await run.logits(ids)).map((row) => Float32Array.from(row));
            await run.dispose();
            return rows;
          };
          const written = await logits(native!, output);
          expect(written).toEqual(await logits(native!, input, types));
          // A last bit of x may move an 8-bit code to its neighbour.
          const tolerance = activations === 'q8' ? 2e-2 : 1e-4;
          const expected = await logits(reference!, output);
          for (const [t, row] of written.entries()) expectClose(row, expected[t]!, tolerance, `logits at ${t}`);
        }
      }
    }
  },
);

test.skipIf(nativeInfo().binary === null)('native code writes the same bytes', async () => {
  for (const input of [tinyGguf(), llama(), writeCheckpoint(fresh('gpt2'), tinyGpt2())]) {
    const outputs = [1, 2].map(() => (input.endsWith('.gguf') ? `${fresh()}.gguf` : fresh()));
    const bytes = (path: string) => readFileSync(path.endsWith('.gguf') ? path : join(path, 'model.safetensors'));
    const slow = await quantise(input, outputs[0]!, int4);
    const fast = await quantiseModel(input, outputs[1]!, { types: int4, threads: 3 });
    expect(fast.quantiser).toBe('native');
    expect(bytes(outputs[1]!).equals(bytes(outputs[0]!))).toBe(true);
    expect(fast.total.relativeError).toBeCloseTo(slow.total.relativeError, 6);
  }
});

describe('trained models', () => {
  // "Once upon a time, there was a little girl named Lily. She loved to play"
  const story = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337];

  itWithData('models/stories260K-hf', 'stories260K in int8 and int4 stays close to its float32 self', async (input) => {
    const exact = await logitsOf(input, undefined, story);
    const kl = async (types: QuantisedTypes) => meanKl(exact, await logitsOf(input, types, story));
    const [eight, four, coarse] = [await kl(int8), await kl(int4), await kl({ layers: 'int4_g64', head: 'int8' })];
    expect(eight).toBeLessThan(0.0005);
    expect(four).toBeLessThan(0.03);
    expect(coarse).toBeGreaterThan(four);
    expect(four).toBeGreaterThan(eight);
  });

  test('the draft of fable: a quantised file generates what quantising while loading does', async () => {
    const input = join(import.meta.dirname, '../../models/fable-draft-q8_0.gguf');
    const output = `${fresh()}.gguf`;
    await quantise(input, output, int4);
    const greedy = async (path: string, types?: QuantisedTypes) => {
      const run = await ModelRun.open(reference!, path, 'q8', types);
      const tokens = await run.greedy([1, 80, 400, 33], 12);
      await run.dispose();
      return tokens;
    };
    expect(await greedy(output)).toEqual(await greedy(input, int4));
    expect(meanKl(await logitsOf(input), await logitsOf(input, int8))).toBeLessThan(0.002);
  });
});
