// npm's install script. In a clone it compiles the TypeScript; everywhere it compiles the native addon, offline, if CMake
// and a C++ compiler are there. It never fails an installation: without the addon the reference backend does the work.
// ENGINE_SKIP_NATIVE_BUILD=1 leaves the addon out.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const buildFolder = join(root, 'build/cmake');
const logFile = join(root, 'build/install.log');

compileTypeScript();
buildAddon();

function compileTypeScript() {
  const tsc = programOf('typescript', 'tsc');
  if (!existsSync(join(root, 'src')) || tsc === null) return; // an installed package brings its dist/
  // Written last, by copy-cjs-entry.mjs.
  const entry = join(root, 'dist/index.cjs');
  const sources = [...filesIn(join(root, 'src')), join(root, 'tsconfig.json'), join(root, 'tsconfig.build.json')];
  if (existsSync(entry) && sources.every((path) => statSync(path).mtimeMs < statSync(entry).mtimeMs)) return;
  const compiled = node([tsc, '-p', 'tsconfig.build.json'], 'inherit');
  if (compiled) node([join(root, 'scripts/copy-cjs-entry.mjs')], 'inherit');
  else say('the TypeScript was not compiled without errors; run npm run build:ts to see them');
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
    withoutAddon(`${missing.join(' and ')} not found; ${toolsHint()}, then run npm rebuild engine-ts`);
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

/** A binary shipped for this machine that can be loaded. */
function hasPrebuilt() {
  const prefix = `${process.platform}-${process.arch}`;
  const folder = join(root, 'prebuilds');
  if (!existsSync(folder)) return false;
  return readdirSync(folder).some((name) => {
    try {
      return (name === prefix || name === `${prefix}-musl`) && require(join(folder, name, 'engine.node')) !== null;
    } catch {
      return false;
    }
  });
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

function filesIn(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
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
