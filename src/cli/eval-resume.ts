import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { EngineError } from '../base/errors.js';
import type { Identity, SavedEvaluation } from '../evaluation/saved-evaluation.js';
import { openModel } from '../formats/hub.js';
import { readJsonFile } from '../formats/json.js';
import type { Engine } from '../library/engine.js';
import { loadFlags } from './flags.js';

/** Flags that change how fast a result comes, and not the result. */
const withoutEffect: readonly string[] = ['model', 'threads', 'contextSize'];

/** What the results depend on besides the text: the model's files, what runs it, and every other flag it was loaded with. */
export async function modelIdentity(engine: Engine, flags: object, prefix = ''): Promise<Identity> {
  const { files } = await openModel(engine.model.path);
  const stamps = [...files].map(
    ([file, { size, mtimeMs }]) => `${basename(file)} (${size} bytes of ${new Date(mtimeMs).toISOString()})`,
  );
  const values = flags as Readonly<Record<string, unknown>>;
  const given = loadFlags()
    .map((flag) => ({ name: flag.attributeName(), flag: flag.long! }))
    .filter(({ name }) => values[name] !== undefined && !withoutEffect.includes(name))
    .map(({ name, flag }) => [flag, String(values[name])] as const);
  // Instruction sets give the same bits, so only the backend's own name counts.
  const entries = [
    ['files', stamps.join(', ')] as const,
    ['run by', engine.backend.replace(/:.*/, '')] as const,
    ...given,
  ];
  return Object.fromEntries(entries.map(([name, value]) => [`${prefix}${name}`, value]));
}

/** What was saved there, or null if there is nothing yet. Throws FILE_UNREADABLE, FORMAT_INVALID, FORMAT_LIMIT. */
export function readSaved(path: string): SavedEvaluation | null {
  // What it holds is checked where it is used.
  return existsSync(path) ? (readJsonFile(path, 'saved evaluation') as unknown as SavedEvaluation) : null;
}

/** A reader sees the file before or after, never half of it. Throws FILE_UNWRITABLE. */
export function writeSaved(path: string, saved: SavedEvaluation): void {
  const beside = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(beside, `${JSON.stringify(saved)}\n`);
    renameSync(beside, path);
  } catch (error) {
    rmSync(beside, { force: true });
    throw new EngineError('FILE_UNWRITABLE', { path, reason: (error as Error).message }, { cause: error });
  }
}
