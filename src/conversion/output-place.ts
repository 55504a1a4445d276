import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { EngineError } from '../base/errors.js';
import type { ModelSource, SafetensorsSource } from '../formats/hub.js';
import { writeError } from '../formats/whole-file.js';

/** Where a quantised model is written to: a GGUF file, or the folder of a safetensors file. */
export interface OutputPlace {
  readonly path: string;
  /** Puts what belongs to the weights beside them. */
  finish(): Promise<void>;
  /** Removes a folder that was made for the output. */
  abandon(): Promise<void>;
}

/** What makes a folder a model besides weights: configuration and tokenizer, and the papers that come with them. */
const companions =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config)\.json$|^(merges\.txt|vocab\.txt|tokenizer\.model|spiece\.model|chat_template\.jinja|chat_template\.json|README\.md)$|^(LICENSE|NOTICE)/i;

/**
 * Checks that the place is not the model's own, and that nothing is there, unless `force` allows to replace it; makes the
 * folder of safetensors. Throws FILE_UNWRITABLE and OPTION_INVALID.
 */
export async function prepareOutput(source: ModelSource, output: string, force: boolean): Promise<OutputPlace> {
  const path = resolve(output);
  const expected = source.format === 'gguf' ? 'the path of a .gguf file' : 'the path of a folder';
  const wrong = source.format === 'gguf' ? /\.safetensors$/i : /\.(gguf|safetensors)$/i;
  if (output === '' || wrong.test(path)) {
    const problem = `${expected}, because the model is ${source.format}`;
    throw new EngineError('OPTION_INVALID', { option: 'the output path', value: output, expected: problem });
  }
  return source.format === 'gguf' ? filePlace(source, path, force) : folderPlace(source, path, force);
}

function filePlace(source: ModelSource, path: string, force: boolean): OutputPlace {
  if (existsSync(path)) {
    if (statSync(path).isDirectory()) throw unwritable(path, 'it is a folder');
    refuseInputs(source, path);
    refuseUnlessForced(path, force);
  }
  return { path, finish: async () => undefined, abandon: async () => undefined };
}

function folderPlace(source: SafetensorsSource, path: string, force: boolean): OutputPlace {
  const isThere = existsSync(path);
  if (isThere) {
    if (!statSync(path).isDirectory()) throw unwritable(path, 'it is a file');
    if (realpathSync(path) === realpathSync(source.directory)) throw unwritable(path, SAME);
    const weights = join(path, 'model.safetensors');
    if (existsSync(weights)) refuseInputs(source, weights);
    if (readdirSync(path).length > 0) refuseUnlessForced(path, force);
  } else {
    makeFolder(path);
  }
  const copied: string[] = [];
  return {
    path,
    finish: async () => {
      for (const name of readdirSync(source.directory).filter((file) => companions.test(file))) {
        const target = join(path, name);
        try {
          if (!statSync(join(source.directory, name)).isFile()) continue;
          // What is there may be a link to the model's own file, or read-only as hubs leave theirs.
          rmSync(target, { force: true });
          copied.push(target);
          writeFileSync(target, readFileSync(join(source.directory, name)));
        } catch (error) {
          throw writeError(error, target);
        }
      }
    },
    abandon: async () => {
      if (isThere) return;
      for (const file of [...copied, join(path, 'model.safetensors')]) rmSync(file, { force: true });
      rmdirSync(path);
    },
  };
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    throw writeError(error, path);
  }
}

const SAME = 'it is the model that is to be quantised';

/** Whether `path` is one of the model's files, by whatever name: links of both kinds lead to the same file. */
function refuseInputs(source: ModelSource, path: string): void {
  const { dev, ino } = statSync(path);
  for (const file of source.files.keys()) {
    const input = statSync(file);
    if (input.dev === dev && input.ino === ino) throw unwritable(path, SAME);
  }
}

function refuseUnlessForced(path: string, force: boolean): void {
  if (!force) throw unwritable(path, 'it exists already, and --force is not given');
}

function unwritable(path: string, reason: string): EngineError {
  return new EngineError('FILE_UNWRITABLE', { path, reason });
}
