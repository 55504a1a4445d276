// npm's install script. In a clone it compiles the TypeScript; everywhere it compiles the native addon, offline, if CMake
// and a C++ compiler are there and no prebuilt addon works on this machine. It never fails an installation: without the
// addon the reference backend does the work. ENGINE_SKIP_NATIVE_BUILD=1 leaves the addon out.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { changedSince } from './native-sources.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const buildFolder = join(root, 'build/cmake');
const logFile = join(root, 'build/install.log');
const isClone = existsSync(join(root, 'src'));

compileTypeScript();
buildAddon();

function compileTypeScript() {
  const tsc = programOf('typescript', 'tsc');
  if (!isClone || tsc === null) return; // an installed package brings its dist/
  if (!node([join(root, 'scripts/build-ts.mjs')], 'inherit')) {
    say('the TypeScript was not compiled without errors; run npm run build:ts to see them');
  }
}

function buildAddon() {
  if (process.env.ENGINE_SKIP_NATIVE_BUILD === '1' || hasPrebuilt()) return;
  const cmakeJs = programOf('cmake-js', 'cmake-js');
  const missing = [
    ...(cmakeJs === null ? ['cmake-js (npm install)'] : []),
    ...(runs('cmake') ? [] : ['CMake']),
    ...(hasCompiler() ? [] : ['a C++20 compiler']),
  ];
  if (missing.length > 0) {
    withoutAddon(
      `${missing.join(' and ')} not found; ${toolsHint()}, then run ${isClone ? 'npm install' : 'npm rebuild engine-ts'}`,
    );
    return;
  }
  forgetMovedBuild();
  mkdirSync(dirname(logFile), { recursive: true });
  const log = openSync(logFile, 'w');
  if (!node([cmakeJs, 'build', '--out', buildFolder, '--parallel', '2'], ['ignore', log, log])) {
    const error = readFileSync(logFile, 'utf8')
      .split('\n')
      .find((line) => /\berror\b|CMake Error/i.test(line));
    withoutAddon(`${error?.trim() ?? 'the build failed'}; the whole log is in ${logFile}`);
  } else if (!isClone) {
    rmSync(buildFolder, { recursive: true }); // nobody will build here again
  }
}

/** The program `name` of an installed package as a path to a script, or null. */
function programOf(packageName, name) {
  try {
    const manifest = require.resolve(`${packageName}/package.json`);
    return join(dirname(manifest), require(manifest).bin[name]);
  } catch {
    return null;
  }
}

/** A prebuilt addon that this package's own loader accepts; in a clone it must be newer than the native sources too. */
function hasPrebuilt() {
  const prebuilds = join(root, 'prebuilds');
  if (!existsSync(prebuilds)) return false;
  const script = `import { tryAddons } from './dist/backend/native-loader.js';
    process.stdout.write(tryAddons().loaded?.path ?? '');`;
  // In another process: a binary that is no good may take it down.
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ENGINE_ADDON_PATH: '' },
  });
  if (status !== 0 || !stdout.startsWith(prebuilds)) return false;
  return !(isClone && changedSince(stdout, root));
}

function hasCompiler() {
  // CMake finds Visual Studio by itself.
  if (process.platform === 'win32') return true;
  return [process.env.CXX, 'c++', 'g++', 'clang++'].some((name) => name && runs(name));
}

function runs(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}

/** CMake refuses a build folder that was configured for another place, as after moving a clone. */
function forgetMovedBuild() {
  const cache = join(buildFolder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  if (home === undefined || !existsSync(home) || realpathSync(home) !== realpathSync(root)) {
    rmSync(buildFolder, { recursive: true });
  }
}

function node(args, stdio) {
  return spawnSync(process.execPath, args, { cwd: root, stdio }).status === 0;
}

function toolsHint() {
  switch (process.platform) {
    case 'darwin':
      return 'install them with xcode-select --install and brew install cmake';
    case 'win32':
      return 'install the Visual Studio Build Tools with the C++ and CMake components';
    default:
      return 'install them, e.g. apt install cmake g++';
  }
}

function withoutAddon(problem) {
  say(`the native addon was not built: ${problem}. Everything still runs, more slowly, on the reference backend.`);
}

function say(message) {
  console.warn(`engine-ts: ${message}`);
}
