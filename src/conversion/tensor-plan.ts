import type { ModelSource } from '../formats/hub.js';
import type { TensorInfo } from '../formats/model-file.js';
import type { TensorToWrite } from '../formats/tensor-writer.js';
import { loadModel } from '../model/load.js';
import type { QuantisedTypes } from '../model/quantised-types.js';
import { matrixBytes } from '../tensor/dtype.js';
import type { PackedDType } from '../tensor/packed.js';

interface ConvertedTensor {
  readonly source: TensorInfo;
  readonly output: TensorToWrite;
  /** Values of a row of the matrix, however it is stored. */
  readonly columns: number;
}

/** Norm weights and biases become float32; what is copied keeps its bytes. */
export interface UnquantisedTensor extends ConvertedTensor {
  readonly kind: 'floats' | 'copy';
}

export interface QuantisedTensor extends ConvertedTensor {
  readonly kind: 'quantise';
  readonly dtype: PackedDType;
  readonly rows: number;
  /** As in WeightSource. */
  readonly transposedStride: number;
}

/** What becomes of one tensor of a model. */
export type TensorPlan = QuantisedTensor | UnquantisedTensor;

/**
 * What quantising makes of each tensor of a model, in the order of its files; safetensors that no forward pass needs are
 * left out (a tied head that is stored all the same). The rules are those of loading with `quantise`.
 *
 * Throws what loading the model throws.
 */
export function planTensors(source: ModelSource, types: QuantisedTypes): TensorPlan[] {
  const { plan, weights } = loadModel(source, { activations: 'f32', quantise: types });
  const uses = new Map(plan.weights.map(({ id, name }) => [name, weights.entries[id]!]));
  return [...source.tensors.values()].flatMap((tensor): TensorPlan[] => {
    const { name, shape, dtype, byteLength } = tensor;
    const use = uses.get(name);
    const columns = use?.columns ?? shape.at(-1) ?? 1;
    if (use?.quantize !== undefined) {
      const { transposedStride } = use;
      const rows = transposedStride > 0 ? transposedStride : shape[0]!;
      const output = packedOutput(name, use.quantize, rows, columns);
      return [{ kind: 'quantise', source: tensor, output, dtype: use.quantize, rows, columns, transposedStride }];
    }
    if (use !== undefined && shape.length === 1 && dtype !== 'f32') {
      const output = { name, dtype: 'f32' as const, shape, byteLength: matrixBytes('f32', 1, shape[0]!)! };
      return [{ kind: 'floats', source: tensor, output, columns }];
    }
    if (use === undefined && source.format === 'safetensors') return [];
    return [{ kind: 'copy', source: tensor, output: { name, dtype, shape, byteLength }, columns }];
  });
}

function packedOutput(name: string, dtype: PackedDType, rows: number, columns: number): TensorToWrite {
  return { name, dtype, shape: [rows, columns], byteLength: matrixBytes(dtype, rows, columns)! };
}
