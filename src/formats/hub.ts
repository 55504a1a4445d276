import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { EngineError } from '../base/errors.js';
import { fileError, type OpenFile, withFile } from './byte-source.js';
import { type GgufHeader, isGguf, readGguf } from './gguf.js';
import { openSplitGguf, splitCount } from './gguf-split.js';
import type { GgufValue } from './gguf-value.js';
import { type JsonObject, readJsonFile } from './json.js';
import type { FileStamp, ModelFiles } from './model-file.js';
import { isSafetensors, readSafetensors, type SafetensorsHeader } from './safetensors.js';
import { openShards, shardsOf } from './safetensors-shards.js';

export interface GgufSource extends ModelFiles {
  readonly format: 'gguf';
  readonly metadata: ReadonlyMap<string, GgufValue>;
}

export interface SafetensorsSource extends ModelFiles {
  readonly format: 'safetensors';
  /** config.json. */
  readonly config: JsonObject;
  /** Absolute path of the folder of the weights and everything that belongs to them. */
  readonly directory: string;
  /** Absolute path of tokenizer.json. */
  readonly tokenizerJson?: string;
  /** Absolute path of chat_template.jinja, which newer models have instead of a field of tokenizer_config.json. */
  readonly chatTemplateJinja?: string;
  /** tokenizer_config.json. */
  readonly tokenizerConfig?: JsonObject;
  /** generation_config.json. */
  readonly generationConfig?: JsonObject;
}

export type ModelSource = GgufSource | SafetensorsSource;

/** What the header at the start of one file turned out to be. */
type Header =
  | { readonly format: 'gguf'; readonly header: GgufHeader; readonly stamp: FileStamp }
  | { readonly format: 'safetensors'; readonly header: SafetensorsHeader; readonly stamp: FileStamp };

/**
 * Reads the headers of a model and the JSON that lies beside it; no tensor bytes.
 *
 * `path` is a GGUF file (any one of the files if it is split), a safetensors file with config.json beside it (any one
 * of its shards), or a folder with config.json and safetensors files, or with one GGUF model. A file's first bytes
 * decide what it is, not its name.
 *
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_NOT_FOUND, MODEL_AMBIGUOUS, FORMAT_UNKNOWN, FORMAT_INVALID,
 * FORMAT_LIMIT, DTYPE_UNSUPPORTED (GGUF) and TENSOR_MISSING (a shard without what its index promises).
 */
export async function openModel(path: string): Promise<ModelSource> {
  if (typeof path !== 'string' || path === '') {
    throw new EngineError('OPTION_INVALID', { option: 'model', value: path, expected: 'a path' });
  }
  const absolute = resolve(path);
  let isFolder: boolean;
  try {
    isFolder = statSync(absolute).isDirectory();
  } catch (error) {
    throw fileError(error, absolute, 'model');
  }
  return isFolder ? openFolder(absolute) : openFile(absolute);
}

/** Opens a file of either format as weights alone, without a configuration: adapters, single tensors. */
export function openWeights(path: string): ModelFiles {
  const absolute = resolve(path);
  const { header, stamp } = readHeader(absolute);
  return { path: absolute, ...header, files: new Map([[absolute, stamp]]) };
}

function openFile(path: string): ModelSource {
  const { format, header, stamp } = readHeader(path);
  const files = new Map([[path, stamp]]);
  if (format === 'gguf') {
    const { metadata, tensors } = header;
    if (splitCount(path, metadata) > 1) return { format, ...openSplitGguf(path, metadata) };
    return { format, path, metadata, tensors, files };
  }
  const directory = dirname(path);
  const shards = shardsOf(directory);
  if (shards !== null && new Set(shards.values()).has(basename(path))) {
    return withConfiguration(directory, openShards(directory, shards));
  }
  return withConfiguration(directory, { path, tensors: header.tensors, unsupported: header.unsupported, files });
}

function openFolder(directory: string): ModelSource {
  let names: string[];
  try {
    names = readdirSync(directory).sort();
  } catch (error) {
    throw fileError(error, directory, 'model');
  }
  const safetensors = names.filter((name) => name.endsWith('.safetensors'));
  // One GGUF model may be split; and a vision projector lies beside the model it belongs to.
  const ggufs = names.filter((name) => name.endsWith('.gguf') && !/-(?!00001)\d{5}-of-\d{5}\.gguf$|^mmproj/.test(name));
  if (safetensors.length > 0 && (names.includes('config.json') || ggufs.length === 0)) {
    // The order of transformers: a single file, then an index, then whatever there is.
    if (safetensors.includes('model.safetensors')) return openFile(join(directory, 'model.safetensors'));
    const shards = shardsOf(directory);
    if (shards !== null) return withConfiguration(directory, openShards(directory, shards));
    return openFile(join(directory, onlyOne(directory, safetensors)));
  }
  return openFile(join(directory, onlyOne(directory, ggufs)));
}

function onlyOne(directory: string, names: readonly string[]): string {
  if (names.length > 1) throw new EngineError('MODEL_AMBIGUOUS', { path: directory, files: names });
  const [name] = names;
  if (name === undefined) throw new EngineError('MODEL_NOT_FOUND', { path: directory });
  return name;
}

function withConfiguration(directory: string, weights: ModelFiles): SafetensorsSource {
  const beside = (name: string) => {
    const path = join(directory, name);
    return existsSync(path) ? path : null;
  };
  const tokenizerJson = beside('tokenizer.json');
  const chatTemplateJinja = beside('chat_template.jinja');
  const tokenizerConfig = beside('tokenizer_config.json');
  const generationConfig = beside('generation_config.json');
  return {
    format: 'safetensors',
    ...weights,
    directory,
    config: readJsonFile(join(directory, 'config.json'), 'configuration'),
    ...(tokenizerJson && { tokenizerJson }),
    ...(chatTemplateJinja && { chatTemplateJinja }),
    ...(tokenizerConfig && { tokenizerConfig: readJsonFile(tokenizerConfig, 'tokenizer configuration') }),
    ...(generationConfig && { generationConfig: readJsonFile(generationConfig, 'generation configuration') }),
  };
}

/** Bytes that tell the formats apart. */
const START_BYTES = 16;

function readHeader(path: string): Header {
  return withFile(path, 'model', (file) => {
    const { stamp } = file;
    const start = new Uint8Array(Math.min(START_BYTES, file.size));
    file.read(start, 0);
    if (isGguf(start)) return { format: 'gguf', header: readGguf(file), stamp };
    if (isSafetensors(start)) return { format: 'safetensors', header: readSafetensors(file), stamp };
    throw unknownFormat(file, start);
  });
}

function unknownFormat(file: OpenFile, start: Uint8Array): EngineError {
  const invalid = (value: unknown, problem: string) =>
    new EngineError('FORMAT_INVALID', { path: file.path, field: 'content', value, problem });
  if (file.size === 0) return invalid('empty', 'expected a model');
  // What a git checkout leaves in place of large files; every second "broken" model is one.
  const isPointer = Buffer.from(start).toString('latin1').startsWith('version https:');
  if (isPointer) return invalid('a Git LFS pointer', 'which only says where the model is; fetch it with git lfs pull');
  return new EngineError('FORMAT_UNKNOWN', { path: file.path });
}
