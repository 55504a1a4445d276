import { EngineError } from '../base/errors.js';
import { type DType, dtypes } from '../tensor/dtype.js';

/** Where one tensor's bytes lie. Bytes of weights never enter the JS heap; native backends map the file. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Outermost dimension first, as in safetensors and numpy: a matrix is [rows, columns], each row contiguous. */
  readonly shape: readonly number[];
  /** Absolute path of the file. */
  readonly file: string;
  /** First byte, from the start of the file. */
  readonly offset: number;
  /** Bytes stored. */
  readonly byteLength: number;
}

/** Size and modification time when the header was read; backends check that the file is still the same. */
export interface FileStamp {
  readonly size: number;
  readonly mtimeMs: number;
}

/** What a model file or folder says about itself: headers only. */
export interface ModelFiles {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Tensors of types the engine cannot compute with, by name: their type as the file has it. Checkpoints carry such
   * buffers without needing them (BERT's int64 position_ids), so they are an error only when asked for.
   */
  readonly unsupported?: ReadonlyMap<string, string>;
  /** By absolute path. */
  readonly files: ReadonlyMap<string, FileStamp>;
}

/** The tensor of this name. Throws TENSOR_MISSING, or DTYPE_UNSUPPORTED if its type is why it cannot be had. */
export function requireTensor(model: ModelFiles, name: string): TensorInfo {
  const info = model.tensors.get(name);
  if (info !== undefined) return info;
  const dtype = model.unsupported?.get(name);
  if (dtype === undefined) throw new EngineError('TENSOR_MISSING', { path: model.path, tensor: name });
  throw new EngineError('DTYPE_UNSUPPORTED', { tensor: name, dtype, supported: Object.keys(dtypes).join(', ') });
}
