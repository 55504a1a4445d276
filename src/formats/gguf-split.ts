import { basename, dirname, join } from 'node:path';
import { EngineError } from '../base/errors.js';
import { withFile } from './byte-source.js';
import { Fields } from './fields.js';
import { readGguf } from './gguf.js';
import type { GgufValue } from './gguf-value.js';
import type { FileStamp, ModelFiles, TensorInfo } from './model-file.js';

/** Files one model may be split into. */
const MAX_FILES = 1024;

/** How many files a GGUF model consists of, from the metadata of one of them. */
export function splitCount(path: string, metadata: ReadonlyMap<string, GgufValue>): number {
  return new Fields(path, metadata).optionalUint('split.count', { max: MAX_FILES }) ?? 1;
}

/**
 * Opens a GGUF model that is split into several files, given any one of them: `NAME-00001-of-00003.gguf` and so on, in
 * one folder (llama.cpp's gguf-split). The first file's metadata are the model's.
 *
 * Throws FORMAT_INVALID if the names, the numbers or the tensors of the files contradict each other.
 */
export function openSplitGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValue>,
): ModelFiles & { metadata: ReadonlyMap<string, GgufValue> } {
  const count = splitCount(path, metadata);
  const name = /^(.*)-\d{5}-of-(\d{5})\.gguf$/s.exec(basename(path));
  if (name === null || Number(name[2]) !== count) {
    const problem = `expected a name ending in -00001-of-${digits(count)}.gguf, because split.count is ${count}`;
    throw invalid(path, 'file name', basename(path), problem);
  }
  const tensors = new Map<string, TensorInfo>();
  const files = new Map<string, FileStamp>();
  let first: ReadonlyMap<string, GgufValue> = metadata;
  for (let i = 0; i < count; i++) {
    const file = join(dirname(path), `${name[1]}-${digits(i + 1)}-of-${digits(count)}.gguf`);
    const { header, stamp } = withFile(file, 'part of the model', (open) => ({
      header: readGguf(open),
      stamp: open.stamp,
    }));
    const fields = new Fields(file, header.metadata);
    if (fields.uint('split.no') !== i) throw invalid(file, 'split.no', fields.raw('split.no'), `expected ${i}`);
    if (splitCount(file, header.metadata) !== count) {
      throw invalid(file, 'split.count', fields.raw('split.count'), `expected ${count}`);
    }
    for (const [tensor, info] of header.tensors) {
      if (tensors.has(tensor)) throw invalid(file, 'tensor name', tensor, 'which another file of the model has too');
      tensors.set(tensor, info);
    }
    files.set(file, stamp);
    if (i === 0) first = header.metadata;
  }
  const total = new Fields(path, first).optionalUint('split.tensors.count') ?? tensors.size;
  if (total !== tensors.size) throw invalid(path, 'split.tensors.count', total, `but the files have ${tensors.size}`);
  return { path, metadata: first, tensors, files };
}

function digits(n: number): string {
  return String(n).padStart(5, '0');
}

function invalid(path: string, field: string, value: unknown, problem: string): EngineError {
  return new EngineError('FORMAT_INVALID', { path, field, value, problem });
}
