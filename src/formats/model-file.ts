import type { DType } from '../tensor/dtype.js';

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
  readonly files: ReadonlyMap<string, FileStamp>;
}
