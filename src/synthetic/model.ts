import { invariant } from '../base/errors.js';
import type { GgufValueToWrite } from '../formats/gguf-encode.js';
import { type GgufTensorToWrite, type GgufWriteOptions, writeGguf, writeGgufHeader } from '../formats/gguf-writer.js';
import { dtypes } from '../tensor/dtype.js';
import { RandomWeights } from './blocks.js';
import { type LlamaShape, llamaShapes, type ShapeName } from './shapes.js';
import { type MatrixDType, type MatrixPlace, matrixType, type SyntheticType, syntheticTypes } from './types.js';
import { syntheticVocabulary } from './vocabulary.js';

interface TensorToMake extends GgufTensorToWrite {
  readonly dtype: MatrixDType;
}

export interface SyntheticOptions extends Pick<GgufWriteOptions, 'signal' | 'onProgress'> {
  readonly shape: ShapeName;
  readonly type: SyntheticType;
  /** Same seed, same bytes. Default 0. */
  readonly seed?: number | undefined;
}

/**
 * Writes a GGUF file with the sizes of a published Llama model, random weights and a vocabulary that fits: for measuring
 * speed without downloading anything. Other engines can load it. Throws FILE_UNWRITABLE and ABORTED.
 */
export async function writeSyntheticModel(path: string, options: SyntheticOptions): Promise<void> {
  const { shape: name, type, seed = 0, ...writing } = options;
  const shape: LlamaShape = llamaShapes[name];
  const tensors = tensorsOf(shape, type);
  const weights = new RandomWeights(seed);
  const bytesOf = (index: number): Iterable<Uint8Array> => {
    const { dtype, shape: sizes, byteLength } = tensors[index]!;
    return sizes.length === 1 ? [weights.norm(sizes[0]!, index)] : weights.blocks(dtype, byteLength, index);
  };
  await writeGguf(path, metadataOf(`synthetic ${name} ${type}`, shape, type), tensors, bytesOf, writing);
}

/** Writes such a file with zeros for weights, which takes a moment: for what depends on sizes alone. Throws FILE_UNWRITABLE. */
export function writeSyntheticHeader(path: string, shape: ShapeName, type: SyntheticType): void {
  const sizes = llamaShapes[shape];
  writeGgufHeader(path, metadataOf(`synthetic ${shape} ${type}`, sizes, type), tensorsOf(sizes, type));
}

/** Bytes of tensors that such a file has. */
export function syntheticBytes(shape: ShapeName, type: SyntheticType): number {
  return tensorsOf(llamaShapes[shape], type).reduce((sum, { byteLength }) => sum + byteLength, 0);
}

function metadataOf(name: string, shape: LlamaShape, type: SyntheticType): Map<string, GgufValueToWrite> {
  const uint = (value: number): GgufValueToWrite => ({ type: 'uint32', value });
  const float = (value: number): GgufValueToWrite => ({ type: 'float32', value });
  return new Map<string, GgufValueToWrite>([
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['general.name', { type: 'string', value: name }],
    ['general.file_type', uint(syntheticTypes[type].fileType)],
    ['general.quantization_version', uint(2)],
    ['llama.context_length', uint(shape.contextLength)],
    ['llama.embedding_length', uint(shape.hiddenSize)],
    ['llama.block_count', uint(shape.numLayers)],
    ['llama.feed_forward_length', uint(shape.intermediateSize)],
    ['llama.attention.head_count', uint(shape.numHeads)],
    ['llama.attention.head_count_kv', uint(shape.numKvHeads)],
    ['llama.attention.layer_norm_rms_epsilon', float(1e-5)],
    ['llama.rope.dimension_count', uint(shape.headDim)],
    ['llama.rope.freq_base', float(shape.ropeTheta)],
    ['llama.vocab_size', uint(shape.vocabSize)],
    ...syntheticVocabulary(shape.vocabulary, shape.vocabSize),
  ]);
}

function tensorsOf(shape: LlamaShape, type: SyntheticType): TensorToMake[] {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim, numLayers, vocabSize, tied } = shape;
  const norm = (name: string): TensorToMake => {
    return { name: `${name}.weight`, dtype: 'f32', shape: [hiddenSize], byteLength: 4 * hiddenSize };
  };
  const matrix = (name: string, rows: number, columns: number, role: MatrixPlace['role'] = 'other', layer = -1) => {
    const dtype = matrixType(type, { role, tied, layer, numLayers, columns });
    const { blockSize, blockBytes } = dtypes[dtype];
    invariant(columns % blockSize === 0, `rows of ${columns} in ${dtype}`);
    return {
      name: `${name}.weight`,
      dtype,
      shape: [rows, columns],
      byteLength: (rows * columns * blockBytes) / blockSize,
    };
  };
  const layers = Array.from({ length: numLayers }, (_, layer) => {
    const name = (part: string) => `blk.${layer}.${part}`;
    return [
      norm(name('attn_norm')),
      matrix(name('attn_q'), numHeads * headDim, hiddenSize),
      matrix(name('attn_k'), numKvHeads * headDim, hiddenSize),
      matrix(name('attn_v'), numKvHeads * headDim, hiddenSize, 'value', layer),
      matrix(name('attn_output'), hiddenSize, numHeads * headDim),
      norm(name('ffn_norm')),
      matrix(name('ffn_gate'), intermediateSize, hiddenSize),
      matrix(name('ffn_up'), intermediateSize, hiddenSize),
      matrix(name('ffn_down'), hiddenSize, intermediateSize, 'down', layer),
    ];
  });
  return [
    matrix('token_embd', vocabSize, hiddenSize, 'embedding'),
    ...layers.flat(),
    norm('output_norm'),
    ...(tied ? [] : [matrix('output', vocabSize, hiddenSize, 'output')]),
  ];
}
