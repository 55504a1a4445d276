import type { GgufSource, SafetensorsSource } from '../../src/formats/hub.js';
import type { JsonObject } from '../../src/formats/json.js';
import type { TensorInfo } from '../../src/formats/model-file.js';
import type { DType } from '../../src/tensor/dtype.js';
import { matrixBytes } from '../../src/tensor/dtype.js';
import { type TinyModel, tinyLlama } from './tiny-checkpoint.js';

type Shapes = Readonly<Record<string, readonly number[]>>;

/** An opened checkpoint without a file behind it: all that configurations and plans are made from. */
export function safetensorsSource(
  changes: Readonly<Record<string, unknown>> = {},
  model: TinyModel = tinyLlama(),
): SafetensorsSource {
  const shapes = Object.fromEntries(model.tensors.map(({ name, shape }) => [name, shape]));
  return {
    format: 'safetensors',
    path: '/models/tiny/model.safetensors',
    directory: '/models/tiny',
    config: { ...model.config, ...changes } as JsonObject,
    tensors: tensorTable(shapes),
    files: new Map(),
  };
}

/** The metadata of a GGUF file of the same sizes as `tinyLlama`. */
export const tinyMetadata: Readonly<Record<string, number | string>> = {
  'general.architecture': 'llama',
  'llama.embedding_length': 32,
  'llama.feed_forward_length': 48,
  'llama.block_count': 2,
  'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2,
  'llama.context_length': 128,
  'llama.attention.layer_norm_rms_epsilon': 1e-5,
};

export const tinyGgufShapes: Shapes = {
  'token_embd.weight': [96, 32],
  'output_norm.weight': [32],
  ...Object.fromEntries(
    [0, 1].flatMap((layer) => [
      [`blk.${layer}.attn_norm.weight`, [32]],
      [`blk.${layer}.attn_q.weight`, [32, 32]],
      [`blk.${layer}.attn_k.weight`, [16, 32]],
      [`blk.${layer}.attn_v.weight`, [16, 32]],
      [`blk.${layer}.attn_output.weight`, [32, 32]],
      [`blk.${layer}.ffn_norm.weight`, [32]],
      [`blk.${layer}.ffn_gate.weight`, [48, 32]],
      [`blk.${layer}.ffn_up.weight`, [48, 32]],
      [`blk.${layer}.ffn_down.weight`, [32, 48]],
    ]),
  ),
};

export function ggufSource(
  changes: Readonly<Record<string, unknown>> = {},
  shapes: Shapes = tinyGgufShapes,
  dtypeOf: (name: string) => DType = () => 'f32',
): GgufSource {
  const metadata = new Map(Object.entries({ ...tinyMetadata, ...changes }).filter(([, value]) => value !== undefined));
  const path = '/models/tiny.gguf';
  return {
    format: 'gguf',
    path,
    metadata: metadata as GgufSource['metadata'],
    tensors: tensorTable(shapes, dtypeOf),
    files: new Map(),
  };
}

/** Tensors one after another, in this order, from byte 1000 on. */
export function tensorTable(shapes: Shapes, dtypeOf: (name: string) => DType = () => 'f32'): Map<string, TensorInfo> {
  let offset = 1000;
  const table = new Map<string, TensorInfo>();
  for (const [name, shape] of Object.entries(shapes)) {
    const dtype = dtypeOf(name);
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    const byteLength = matrixBytes(dtype, rows, shape.at(-1)!)!;
    table.set(name, { name, dtype, shape, file: '/models/tiny', offset, byteLength });
    offset += byteLength;
  }
  return table;
}
