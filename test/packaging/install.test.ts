import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { nativeInfo } from '../../src/backend/native.js';
import { prebuildTarget } from '../../src/backend/native-loader.js';
import { notBuilt } from '../backend/native-availability.js';
import { folderWith, root, runNode, tell } from './consumer.js';
import { expectedAnswer } from './expected.js';

const addon = nativeInfo().binary;

/** npm of its own, not of the run of `npm test` it is in: that one's settings are in the environment too. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));

function npm(args: readonly string[], cwd: string, program = 'npm'): string {
  return execFileSync(program, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Packs what lies in a folder; the path of the tarball. */
function pack(folder: string, destination: string): string {
  const [{ filename }] = JSON.parse(
    npm(['pack', '--json', '--ignore-scripts', '--pack-destination', destination], folder),
  ) as [{ filename: string }];
  return join(destination, filename);
}

/** The package as it is published, unpacked, with the addon of this machine prebuilt. */
function publishedPackage(): string {
  const folder = folderWith();
  execFileSync('tar', ['-xzf', pack(root, folder), '-C', folder]);
  const prebuilt = join(folder, 'package/prebuilds', prebuildTarget(), 'engine.node');
  mkdirSync(dirname(prebuilt), { recursive: true });
  copyFileSync(addon!, prebuilt);
  return join(folder, 'package');
}

function whyNoRegistry(): string | null {
  try {
    npm(['view', 'commander', 'version', '--fetch-retries=0', '--fetch-timeout=10000'], root);
    return null;
  } catch {
    return ' (skipped: no package registry can be reached)';
  }
}

describe.skipIf(notBuilt)(`the install script${notBuilt ?? ''}`, async () => {
  const published = notBuilt ? '' : publishedPackage();
  /** Runs it where neither CMake nor a compiler is found; what it writes. */
  const install = (folder: string): string => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/install.mjs'], {
      cwd: folder,
      env: { ...env, PATH: '' },
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    return stdout + stderr;
  };
  const copyOf = (folder: string): string => {
    const copy = folderWith();
    cpSync(folder, copy, { recursive: true, filter: (path) => !path.endsWith('.gguf') });
    return copy;
  };

  it('builds nothing where a prebuilt addon works', () => {
    expect(install(published)).toBe('');
    expect(existsSync(join(published, 'build'))).toBe(false);
  });

  it('would build where the prebuilt addon is none', () => {
    const folder = copyOf(published);
    writeFileSync(join(folder, 'prebuilds', prebuildTarget(), 'engine.node'), 'not a library');
    expect(install(folder)).toMatch(
      /^engine-ts: the native addon was not built: .*CMake and a C\+\+20 compiler not found/,
    );
  });

  it('would build where the prebuilt addon belongs to another version', () => {
    const folder = copyOf(published);
    const path = join(folder, 'dist/backend/encode-plan.js');
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, text.replace(/ENCODING_VERSION = \d+/, 'ENCODING_VERSION = 999999'));
    expect(readFileSync(path, 'utf8')).not.toBe(text);
    expect(install(folder)).toContain('the native addon was not built');
  });
});

const noRegistry = notBuilt ?? whyNoRegistry();

describe.skipIf(noRegistry)(`the installed package${noRegistry ?? ''}`, () => {
  it('runs as a program and as a library, with the prebuilt addon', async () => {
    const consumer = folderWith({
      'package.json': '{ "private": true }',
      'main.mjs': `import { Engine } from 'engine-ts'; ${tell('{}')}`,
      'main.cjs': `const { Engine } = require('engine-ts'); (async () => { ${tell('{}')} })();`,
    });
    const tarball = pack(publishedPackage(), consumer);
    npm(['install', '--no-audit', '--no-fund', '--prefer-offline', tarball], consumer);
    expect(readdirSync(join(consumer, 'node_modules/engine-ts'))).not.toContain('build');

    const expected = await expectedAnswer('native-cpu');
    expect(await runNode(join(consumer, 'main.mjs'))).toEqual(expected);
    expect(await runNode(join(consumer, 'main.cjs'))).toEqual(expected);
    const args = ['--no-install', 'engine', 'generate', 'Once upon a time', '-n', '6', '--temperature', '0', '--json'];
    const report = JSON.parse(npm(args, consumer, 'npx')) as object;
    expect(report).toMatchObject({ backend: expected.backend, token_ids: expected.tokenIds });
  }, 120_000);
});
