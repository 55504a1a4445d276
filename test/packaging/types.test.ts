import { execFile } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { consumerWith, root } from './consumer.js';

const imports = `import { type Completion, Engine, EngineError, type ErrorCode, type LoadOptions } from 'engine-ts';`;
const uses = `
  export async function tell(error: unknown): Promise<number> {
    const options: LoadOptions = { contextSize: 64 };
    const engine: Engine = await Engine.load(options);
    const story: Completion = await engine.complete({ prompt: 'Once' });
    // @ts-expect-error: types are known, nothing is any
    const wrong: string = story.tokenIds;
    const code: ErrorCode | null = error instanceof EngineError ? error.code : null;
    return story.tokenIds.length + (wrong?.length ?? 0) + (code?.length ?? 0);
  }`;
const requires = `
  import engine = require('engine-ts');
  export const options: engine.LoadOptions = { contextSize: 64 };
  export const engines: Promise<engine.Engine> = engine.Engine.load(options);`;

const files = { 'esm.mts': imports + uses, 'cjs.cts': imports + uses, 'require.cts': requires };

/** What the compiler says about these files of a program that uses the package. */
async function compile(module: string, moduleResolution: string, names: readonly string[]): Promise<string> {
  const folder = consumerWith(files);
  symlinkSync(join(root, 'node_modules/@types'), join(folder, 'node_modules/@types'), 'junction');
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const flags = ['--noEmit', '--strict', '--skipLibCheck', 'false', '--target', 'es2022', '--types', 'node'];
  const library = ['--lib', 'es2023,esnext.disposable', '--module', module, '--moduleResolution', moduleResolution];
  const args = [compiler, '--ignoreConfig', ...flags, ...library, ...names.map((name) => join(folder, name))];
  return promisify(execFile)(process.execPath, args, { cwd: folder }).then(
    ({ stdout }) => stdout,
    ({ stdout }: { stdout: string }) => stdout,
  );
}

describe('TypeScript finds the types', () => {
  it.each([
    ['node16', 'node16', Object.keys(files)],
    ['nodenext', 'nodenext', Object.keys(files)],
    ['esnext', 'bundler', ['esm.mts']],
  ] as const)('with module %s and moduleResolution %s', async (module, moduleResolution, names) => {
    expect(await compile(module, moduleResolution, names)).toBe('');
  });
});
