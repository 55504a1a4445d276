import { describe, expect, test } from 'vitest';
import { loadModel } from '../../src/model/load.js';
import type { QuantisedTypes } from '../../src/model/quantised-types.js';
import type { DType } from '../../src/tensor/dtype.js';
import { expectEngineError } from '../formats/engine-error.js';
import { ggufSource, safetensorsSource, tinyGgufShapes } from './sources.js';
import { tinyGpt2, tinyLlama } from './tiny-checkpoint.js';

function load(source: Parameters<typeof loadModel>[0], activations: 'f32' | 'q8' = 'f32') {
  const { plan, weights } = loadModel(source, { activations });
  const entry = (name: string) =>
    plan.weights.flatMap((weight, i) => (weight.name === name ? [weights.entries[i]!] : []));
  return { plan, weights, entry };
}

function without(name: string) {
  const model = tinyLlama();
  return { ...model, tensors: model.tensors.filter((tensor) => tensor.name !== name) };
}

describe('the weight table', () => {
  test('has one entry per tensor, where it lies in the file', () => {
    const source = safetensorsSource();
    const { plan, weights, entry } = load(source);
    expect(plan.weights.map(({ name }) => name).sort()).toEqual([...source.tensors.keys()].sort());
    expect(weights.entries).toHaveLength(plan.weights.length);
    const name = 'model.layers.1.mlp.down_proj.weight';
    const { offset, file } = source.tensors.get(name)!;
    expect(entry(name)).toEqual([{ file, offset, dtype: 'f32', rows: 32, columns: 48, transposedStride: 0 }]);
  });

  test('has a tied embedding once, used by both ends of the plan', () => {
    const { plan, entry } = load(safetensorsSource({}, tinyLlama({ tie_word_embeddings: true })));
    expect(entry('model.embed_tokens.weight')).toHaveLength(1);
    const [first, last] = [plan.ops[0]!, plan.ops.at(-1)!];
    expect(first.op === 'embed' && last.op === 'linear' && first.table === last.weight).toBe(true);
  });

  test('cuts query, key and value out of what GPT-2 stacks, transposed', () => {
    const source = safetensorsSource({}, tinyGpt2());
    const { entry } = load(source);
    const name = 'transformer.h.0.attn.c_attn';
    const { offset } = source.tensors.get(`${name}.weight`)!;
    const common = { file: '/models/tiny', dtype: 'f32', rows: 32, columns: 32, transposedStride: 96 };
    expect(entry(`${name}.weight`)).toEqual([0, 32, 64].map((row) => ({ ...common, offset: offset + 4 * row })));
    const bias = source.tensors.get(`${name}.bias`)!;
    const part = { ...common, rows: 1, transposedStride: 0 };
    expect(entry(`${name}.bias`)).toEqual([0, 32, 64].map((row) => ({ ...part, offset: bias.offset + 4 * row })));
  });

  test('cuts whole rows out of what GGUF stacks', () => {
    const shapes = Object.fromEntries(
      Object.entries(tinyGgufShapes)
        .filter(([name]) => !/attn_[kv]\./.test(name))
        .map(([name, shape]) =>
          name.includes('attn_q.') ? [name.replace('attn_q', 'attn_qkv'), [64, 32]] : [name, shape],
        ),
    );
    const source = ggufSource({}, shapes, (name) => (name.includes('qkv') ? 'q8_0' : 'f32'));
    const { entry } = load(source);
    const { offset } = source.tensors.get('blk.1.attn_qkv.weight')!;
    expect(entry('blk.1.attn_qkv.weight').map((part) => [part.rows, part.offset - offset])).toEqual([
      [32, 0],
      [16, 32 * 34],
      [16, 48 * 34],
    ]);
  });

  test('finds the tensors of a bare model, without the prefix', () => {
    const model = tinyLlama({ tie_word_embeddings: true });
    const tensors = model.tensors.map((tensor) => ({ ...tensor, name: tensor.name.replace(/^model\./, '') }));
    const { plan } = load(safetensorsSource({}, { ...model, tensors }));
    expect(plan.weights[0]!.name).toBe('embed_tokens.weight');
  });

  test('ignores buffers that carry nothing', () => {
    const model = tinyGpt2();
    const mask = { name: 'transformer.h.0.attn.bias', shape: [1, 1, 64, 64], values: new Float32Array() };
    expect(() => load(safetensorsSource({}, { ...model, tensors: [...model.tensors, mask] }))).not.toThrow();
  });
});

describe('quantising while loading', () => {
  const int4 = { layers: 'int4', head: 'int8' } as const;
  const typesOf = (source: Parameters<typeof loadModel>[0], quantise: QuantisedTypes) => {
    const { plan, weights } = loadModel(source, { activations: 'q8', quantise });
    return new Map(plan.weights.map(({ id, name }) => [name, weights.entries[id]!.quantize]));
  };

  test('is for matrices of the layers, and for embeddings and head in a type of their own', () => {
    const types = typesOf(safetensorsSource(), int4);
    expect(types.get('model.layers.0.self_attn.q_proj.weight')).toBe('int4');
    expect(types.get('model.embed_tokens.weight')).toBe('int8');
    expect(types.get('lm_head.weight')).toBe('int8');
    expect(types.get('model.norm.weight')).toBeUndefined();
    expect(types.get('model.layers.0.mlp.down_proj.weight')).toBeUndefined(); // rows of 48 values
    const kept = typesOf(safetensorsSource(), { layers: 'int4_g64', head: null });
    expect(kept.get('model.layers.0.self_attn.q_proj.weight')).toBe('int8'); // rows of 32 values
    expect(kept.get('lm_head.weight')).toBeUndefined();
  });

  test('leaves alone what has one of the types already', () => {
    const source = ggufSource({}, tinyGgufShapes, (name) => (name.includes('attn_q.') ? 'int8' : 'f32'));
    const types = typesOf(source, int4);
    expect(types.get('blk.0.attn_q.weight')).toBeUndefined();
    expect(types.get('blk.0.attn_k.weight')).toBe('int4');
  });

  test('lets float weights meet 8-bit activations', () => {
    const { plan } = loadModel(safetensorsSource(), { activations: 'q8', quantise: int4 });
    const kinds = plan.ops.flatMap((op) => (op.op === 'linear' ? [[op.weight.name, op.activations]] : []));
    expect(kinds).toContainEqual(['model.layers.0.mlp.up_proj.weight', 'q8']);
    expect(kinds).toContainEqual(['model.layers.0.mlp.down_proj.weight', 'f32']);
  });
});

describe('packed matrices', () => {
  const stacked = (rows: number) =>
    Object.fromEntries(
      Object.entries(tinyGgufShapes)
        .filter(([name]) => !/attn_[kv]\./.test(name))
        .map(([name, shape]) =>
          name.includes('attn_q.') ? [name.replace('attn_q', 'attn_qkv'), [rows, 32]] : [name, shape],
        ),
    );
  const dtypeOf = (name: string): DType => (name.includes('qkv') ? 'int4' : 'f32');

  test('are cut between panels', () => {
    const source = ggufSource({}, stacked(64), dtypeOf);
    const { entry } = load(source);
    const panel = 64 + 64 + 256; // bytes
    const { offset } = source.tensors.get('blk.0.attn_qkv.weight')!;
    expect(entry('blk.0.attn_qkv.weight').map((part) => part.offset - offset)).toEqual([0, 2 * panel, 3 * panel]);
  });

  test('are not cut within one', async () => {
    const source = ggufSource({ 'llama.attention.head_count_kv': 1 }, stacked(48), dtypeOf);
    await expectEngineError(() => load(source), 'FORMAT_INVALID', 'attn_qkv.weight row is 40', 'int4 cannot be cut');
  });

  test('are no tables of positions', async () => {
    const source = safetensorsSource({}, tinyGpt2());
    const name = 'transformer.wpe.weight';
    const tensors = new Map([...source.tensors, [name, { ...source.tensors.get(name)!, dtype: 'int8' as const }]]);
    await expectEngineError(() => load({ ...source, tensors }), 'DTYPE_UNSUPPORTED', 'wpe', 'int8', 'f16');
  });

  test('have rows, although the checkpoint stores its matrices transposed', () => {
    const model = tinyGpt2();
    const name = 'transformer.h.0.mlp.c_fc.weight';
    const source = safetensorsSource({}, model);
    const tensor = { ...source.tensors.get(name)!, dtype: 'int8' as const, shape: [128, 32] };
    const { entry } = load({ ...source, tensors: new Map([...source.tensors, [name, tensor]]) });
    expect(entry(name)).toMatchObject([{ dtype: 'int8', rows: 128, columns: 32, transposedStride: 0 }]);
  });
});

describe('linears take 8-bit activations', () => {
  const kinds = (dtypeOf: (name: string) => DType, activations: 'f32' | 'q8') => {
    const { plan } = load(ggufSource({}, tinyGgufShapes, dtypeOf), activations);
    return new Map(plan.ops.flatMap((op) => (op.op === 'linear' ? [[op.weight.name, op.activations] as const] : [])));
  };

  test('only where asked for, and only with weights in blocks', () => {
    const dtypeOf = (name: string): DType =>
      name.includes('attn_q.') ? 'q4_0' : name.includes('attn_k') ? 'f16' : 'f32';
    const mixed = kinds(dtypeOf, 'q8');
    expect(mixed.get('blk.0.attn_q.weight')).toBe('q8');
    expect(mixed.get('blk.0.attn_k.weight')).toBe('f32');
    expect(mixed.get('blk.0.attn_v.weight')).toBe('f32');
    expect([...kinds(dtypeOf, 'f32').values()].every((kind) => kind === 'f32')).toBe(true);
  });
});

describe('a checkpoint is refused', () => {
  test('for a missing tensor', async () => {
    const name = 'model.layers.1.self_attn.v_proj.weight';
    await expectEngineError(() => load(safetensorsSource({}, without(name))), 'TENSOR_MISSING', name);
    // Of an untied head, however often it is left out.
    await expectEngineError(() => load(safetensorsSource({}, without('lm_head.weight'))), 'TENSOR_MISSING', 'lm_head');
  });

  test('for a bias that is announced and not there', async () => {
    const source = safetensorsSource({ attention_bias: true });
    await expectEngineError(() => load(source), 'TENSOR_MISSING', 'q_proj.bias');
  });

  test('for a tensor of another shape', async () => {
    const source = safetensorsSource({ intermediate_size: 64 });
    await expectEngineError(() => load(source), 'TENSOR_SHAPE', 'gate_proj.weight', '[48, 32]', 'expected [64, 32]');
  });

  test('for tensors the architecture does not have', async () => {
    const shapes = { ...tinyGgufShapes, 'blk.1.attn_q_norm.weight': [8] };
    await expectEngineError(
      () => load(ggufSource({}, shapes)),
      'TENSOR_UNEXPECTED',
      'blk.1.attn_q_norm.weight',
      'llama',
    );
    const biased = tinyLlama({ attention_bias: true });
    const source = safetensorsSource({ attention_bias: false }, biased);
    await expectEngineError(() => load(source), 'TENSOR_UNEXPECTED', 'q_proj.bias');
  });

  test('for a tensor of a type that cannot be computed with', async () => {
    const name = 'model.layers.0.mlp.up_proj.weight';
    const source = { ...safetensorsSource({}, without(name)), unsupported: new Map([[name, 'F8_E4M3']]) };
    await expectEngineError(() => load(source), 'DTYPE_UNSUPPORTED', name, 'F8_E4M3');
  });

  test('for frequency factors of another length', async () => {
    const shapes = { ...tinyGgufShapes, 'rope_freqs.weight': [8] };
    await expectEngineError(() => load(ggufSource({}, shapes)), 'TENSOR_SHAPE', 'rope_freqs.weight', 'expected [4]');
  });
});
