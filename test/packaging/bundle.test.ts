import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Format } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { nativeInfo } from '../../src/backend/native.js';
import { embeddedModel } from '../../src/library/embedded-model.js';
import { notBuilt } from '../backend/native-availability.js';
import { consumerWith, folderWith, root, runNode, tell } from './consumer.js';
import { expectedAnswer } from './expected.js';

const addon = nativeInfo().binary;
const worker = 'dist/backend/reference-worker.js';

/** Bundles a program that imports the package into `folder`, as docs/packaging.md says; the path of the bundle. */
async function bundle(program: string, format: Format, folder: string, withWorker = false): Promise<string> {
  const main = join(consumerWith({ 'main.ts': `import { Engine } from 'engine-ts';\n${program}` }), 'main.ts');
  const extension = format === 'esm' ? '.mjs' : '.cjs';
  const { warnings } = await build({
    entryPoints: withWorker ? [main, join(root, worker)] : [main],
    entryNames: '[name]',
    outdir: folder,
    outExtension: { '.js': extension },
    bundle: true,
    platform: 'node',
    format,
    logLevel: 'silent',
  });
  const ids = warnings.map(({ id }) => id);
  expect(ids).toEqual(format === 'cjs' ? ['empty-import-meta'] : []);
  return join(folder, `main${extension}`);
}

const asyncMain = (body: string): string => `(async () => { ${body} })();`;
const tellWithBackend = asyncMain(tell('{ backend: process.env.BACKEND as never }'));
const failWithBackend = asyncMain(`
  const errors = ['auto', 'reference', 'native-cpu'].map((backend) =>
    Engine.load({ backend: backend as never, ...(backend !== 'auto' && { model: process.env.MODEL }) }).then(
      async (engine) => { await engine.dispose(); return 'loaded'; },
      ({ code, message }) => ({ code, message }),
    ));
  console.log(JSON.stringify(await Promise.all(errors)));`);

describe.each(['esm', 'cjs'] as const)('a bundle in the format %s', (format) => {
  it('finds addon, worker and model in the package installed beside it', async () => {
    const path = await bundle(tellWithBackend, format, consumerWith());
    expect(await runNode(path, { BACKEND: 'auto' })).toEqual(await expectedAnswer('auto'));
    expect(await runNode(path, { BACKEND: 'reference' })).toEqual(await expectedAnswer('reference'));
  });

  it('finds the worker and the model in its own folder', async () => {
    const folder = folderWith();
    copyFileSync(embeddedModel, join(folder, 'fable-q8_0.gguf'));
    const path = await bundle(tellWithBackend, format, folder, true);
    expect(await runNode(path, { BACKEND: 'reference' })).toEqual(await expectedAnswer('reference'));
  });

  it.skipIf(addon === null)(`finds the addon in its own folder${notBuilt ?? ''}`, async () => {
    const folder = folderWith();
    copyFileSync(embeddedModel, join(folder, 'fable-q8_0.gguf'));
    copyFileSync(addon!, join(folder, 'engine.node'));
    const path = await bundle(tellWithBackend, format, folder);
    expect(await runNode(path, { BACKEND: 'native-cpu' })).toEqual(await expectedAnswer('native-cpu'));
  });

  it('says what it misses when it is alone', async () => {
    const folder = folderWith();
    const path = await bundle(failWithBackend, format, folder);
    expect(await runNode<object[]>(path, { MODEL: embeddedModel })).toEqual([
      { code: 'EMBEDDED_MODEL_MISSING', message: expect.stringContaining(join(folder, 'fable-q8_0.gguf')) },
      { code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining(join(folder, 'reference-worker.js')) },
      { code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining('ENGINE_ADDON_PATH') },
    ]);
  });

  it.skipIf(addon === null)(
    `takes the addon that ENGINE_ADDON_PATH names, and the model it is told${notBuilt ?? ''}`,
    async () => {
      const path = await bundle(asyncMain(tell('{ model: process.env.MODEL }')), format, folderWith());
      const answer = await runNode(path, { MODEL: embeddedModel, ENGINE_ADDON_PATH: addon! });
      expect(answer).toEqual(await expectedAnswer('native-cpu'));
    },
  );
});
