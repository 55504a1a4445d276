import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { EngineError } from '../base/errors.js';
import { withFile } from './byte-source.js';
import { Fields } from './fields.js';
import { readJsonFile } from './json.js';
import type { FileStamp, ModelFiles, TensorInfo } from './model-file.js';
import { readSafetensors } from './safetensors.js';
import { isPlainName } from './tensor-table.js';

const INDEX_NAME = 'model.safetensors.index.json';

/** Files one model may be split into. */
const MAX_SHARDS = 1024;

/**
 * Which file of the folder holds each tensor, by name: `weight_map` of the index that transformers writes. Null if
 * the folder has no index.
 *
 * Throws FORMAT_INVALID if a name leads out of the folder, which would let a model read any file of the machine.
 * A link inside of the folder is followed: the hub's own cache consists of links.
 */
export function shardsOf(directory: string): ReadonlyMap<string, string> | null {
  const path = join(directory, INDEX_NAME);
  if (!existsSync(path)) return null;
  const map = new Fields(path, readJsonFile(path, 'index')).child('weight_map');
  const shards = new Map<string, string>();
  for (const tensor of map.keys()) {
    const file = map.string(tensor);
    if (!isPlainName(file) || file.length > 255 || /[/\\:]/.test(file) || !file.endsWith('.safetensors')) {
      const problem = 'expected the name of a .safetensors file of the same folder';
      throw new EngineError('FORMAT_INVALID', { path, field: `weight_map.${tensor}`, value: file, problem });
    }
    shards.set(tensor, file);
  }
  if (shards.size === 0) {
    const problem = 'expected the name of at least one tensor';
    throw new EngineError('FORMAT_INVALID', { path, field: 'weight_map', value: 'empty', problem });
  }
  const numFiles = new Set(shards.values()).size;
  if (numFiles > MAX_SHARDS) {
    throw new EngineError('FORMAT_LIMIT', { path, field: 'number of files', value: numFiles, limit: MAX_SHARDS });
  }
  return shards;
}

/**
 * Opens all files of a sharded model. The index is the authority: a tensor it does not give to a file is not taken
 * from there. Throws TENSOR_MISSING if a file lacks a tensor that the index gives to it.
 */
export function openShards(directory: string, shards: ReadonlyMap<string, string>): ModelFiles {
  const tensors = new Map<string, TensorInfo>();
  const unsupported = new Map<string, string>();
  const files = new Map<string, FileStamp>();
  for (const name of new Set(shards.values())) {
    withFile(join(directory, name), 'part of the model', (file) => {
      const header = readSafetensors(file);
      for (const [tensor, info] of header.tensors) if (shards.get(tensor) === name) tensors.set(tensor, info);
      for (const [tensor, type] of header.unsupported) if (shards.get(tensor) === name) unsupported.set(tensor, type);
      files.set(file.path, file.stamp);
    });
  }
  for (const [tensor, name] of shards) {
    if (tensors.has(tensor) || unsupported.has(tensor)) continue;
    throw new EngineError('TENSOR_MISSING', { path: join(directory, name), tensor });
  }
  return { path: directory, tensors, unsupported, files };
}
