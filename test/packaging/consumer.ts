import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll } from 'vitest';

/** The folder of package.json. */
export const root = fileURLToPath(new URL('../..', import.meta.url));
if (!existsSync(join(root, 'dist/index.cjs'))) throw new Error('dist is not built: run npm run build:ts');

/** What a program under test prints: one JSON object on stdout. */
export interface Answer {
  readonly backend: string;
  readonly tokenIds: readonly number[];
}

/** The statements of such a program, in a function where `Engine` is in scope; `load` is the text of its options. */
export function tell(load: string): string {
  return `const engine = await Engine.load(${load});
    const { tokenIds } = await engine.complete({ prompt: 'Once upon a time', maxTokens: 6, temperature: 0 });
    await engine.dispose();
    console.log(JSON.stringify({ backend: engine.backend, tokenIds }));`;
}

/** A folder outside of the repository, with these files; removed when the test file ends. */
export function folderWith(files: Record<string, string> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'engine-packaging-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

/** The same, with this repository installed as engine-ts. */
export function consumerWith(files: Record<string, string> = {}): string {
  const folder = folderWith(files);
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules/engine-ts'), 'junction');
  return folder;
}

/** Runs a program; its JSON answer. Throws if it fails or writes anything to stderr. */
export async function run<T = Answer>(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: Record<string, string> } = {},
): Promise<T> {
  const env = { ...process.env, ...options.env };
  const { stdout, stderr } = await promisify(execFile)(program, [...args], { ...options, env });
  if (stderr !== '') throw new Error(`${program} wrote to stderr: ${stderr}`);
  return JSON.parse(stdout) as T;
}

/** The same for a script of Node. */
export function runNode<T = Answer>(script: string, env: Record<string, string> = {}): Promise<T> {
  return run<T>(process.execPath, [script], { env });
}
