import { EngineError } from '../base/errors.js';
import { withFile } from './byte-source.js';
import type { ModelFiles, TensorInfo } from './model-file.js';

/**
 * Copies one tensor's bytes, as stored, into memory: for the reference backend and for small constants such as
 * rope_freqs.weight. Native backends map the file instead.
 *
 * Throws FILE_CHANGED if the file is not the one whose header was read, OUT_OF_MEMORY, and what opening a file throws.
 */
export function readTensorBytes(info: TensorInfo, files: ModelFiles['files']): Uint8Array {
  return withFile(info.file, 'model', (file) => {
    const stamp = files.get(info.file);
    if (stamp?.size !== file.stamp.size || stamp.mtimeMs !== file.stamp.mtimeMs) {
      throw new EngineError('FILE_CHANGED', { path: info.file });
    }
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(info.byteLength);
    } catch (cause) {
      throw new EngineError('OUT_OF_MEMORY', { bytes: info.byteLength, what: `tensor ${info.name}` }, { cause });
    }
    file.read(bytes, info.offset);
    return bytes;
  });
}
