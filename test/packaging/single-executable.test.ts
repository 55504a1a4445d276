import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { nativeInfo } from '../../src/backend/native.js';
import { embeddedModel } from '../../src/library/embedded-model.js';
import { notBuilt } from '../backend/native-availability.js';
import { consumerWith, folderWith, root, run, tell } from './consumer.js';
import { expectedAnswer } from './expected.js';

/** Node looks for this in its own file, to see whether a program has been put into it. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

const postject = join(dirname(createRequire(import.meta.url).resolve('postject/package.json')), 'dist/cli.js');
const addon = nativeInfo().binary;
const skipped = whyNot();

function whyNot(): string | null {
  // Elsewhere an executable that was changed must be signed again.
  if (process.platform !== 'linux') return ' (skipped: made on Linux only)';
  if (!readFileSync(process.execPath).includes(FUSE)) return ' (skipped: this Node cannot become a single executable)';
  return notBuilt;
}

/** Makes a single executable of a program, as docs/packaging.md says; `assets` are files it carries inside. */
async function singleExecutable(program: string, folder: string, assets: Record<string, string>): Promise<string> {
  const source = consumerWith({ 'main.ts': program });
  const at = (name: string): string => join(source, name);
  await build({
    entryPoints: [at('main.ts')],
    outfile: at('main.cjs'),
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'silent',
  });
  const config = { main: at('main.cjs'), output: at('main.blob'), disableExperimentalSEAWarning: true, assets };
  writeFileSync(at('sea.json'), JSON.stringify(config));
  const node = (...args: string[]) => promisify(execFile)(process.execPath, args);
  await node('--experimental-sea-config', at('sea.json'));
  const executable = join(folder, 'story');
  copyFileSync(process.execPath, executable);
  await node(postject, executable, 'NODE_SEA_BLOB', at('main.blob'), '--sentinel-fuse', FUSE);
  return executable;
}

describe.skipIf(skipped)(`a single executable${skipped ?? ''}`, () => {
  it('finds addon, model and worker beside itself', async () => {
    const folder = folderWith();
    copyFileSync(addon!, join(folder, 'engine.node'));
    copyFileSync(embeddedModel, join(folder, 'fable-q8_0.gguf'));
    await build({
      entryPoints: [join(root, 'dist/backend/reference-worker.js')],
      outfile: join(folder, 'reference-worker.cjs'),
      bundle: true,
      platform: 'node',
      format: 'cjs',
    });
    const body = tell('{ backend: process.argv[2] as never }');
    const program = `import { Engine } from 'engine-ts'; (async () => { ${body} })();`;
    const executable = await singleExecutable(program, folder, {});
    expect(await run(executable, ['native-cpu'])).toEqual(await expectedAnswer('native-cpu'));
    expect(await run(executable, ['reference'])).toEqual(await expectedAnswer('reference'));
  }, 60_000);

  it('carries addon and model inside, as assets', async () => {
    const folder = folderWith();
    const program = `
      import { writeFileSync } from 'node:fs';
      import { dirname, join } from 'node:path';
      import { getAsset } from 'node:sea';
      import { Engine } from 'engine-ts';
      const extract = (name: string): string => {
        const path = join(process.argv[2]!, name);
        writeFileSync(path, Buffer.from(getAsset(name)));
        return path;
      };
      process.env.ENGINE_ADDON_PATH = extract('engine.node');
      (async () => { ${tell(`{ backend: 'native-cpu', model: extract('fable-q8_0.gguf') }`)} })();`;
    const assets = { 'engine.node': addon!, 'fable-q8_0.gguf': embeddedModel };
    const executable = await singleExecutable(program, folder, assets);
    const extracted = join(folder, 'extracted');
    mkdirSync(extracted);
    expect(await run(executable, [extracted])).toEqual(await expectedAnswer('native-cpu'));
  }, 60_000);
});
