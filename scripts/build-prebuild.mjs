/**
 * Builds the addon for shipping: prebuilds/<platform>-<arch>[-musl]/engine.node, where the loader looks first.
 *
 *     npm run build:prebuild                                  for this machine
 *     npm run build:prebuild -- --target linux-x64-musl       for another one
 *
 * Kernels are chosen at run time, so one binary serves every processor of an architecture. The compiler is what CXX names;
 * else for linux-x64 and linux-x64-musl zig, if there is one (ENGINE_ZIG, or on the PATH), which builds for any libc; else
 * the machine's own, which builds for the machine's own libc: the binary needs about as new a glibc as the machine has.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

/** What official builds of Node 20 need. */
const GLIBC = '2.28';
/** What zig calls the targets. */
const zigTargets = { 'linux-x64': `x86_64-linux-gnu.${GLIBC}`, 'linux-x64-musl': 'x86_64-linux-musl' };
/** Processors by the name that CMake has for them. */
const processors = { x64: 'x86_64', arm64: 'aarch64' };

const root = fileURLToPath(new URL('..', import.meta.url));
const { prebuildTarget } = await import('../dist/backend/native-loader.js').catch(() => {
  fail('dist/ is not built: run npm run build:ts');
});
const { values } = parseArgs({ options: { target: { type: 'string', default: prebuildTarget() } } });
const target = values.target;

const buildFolder = join(root, 'build/prebuild', target);
const built = join(buildFolder, 'out/engine.node');
rmSync(join(buildFolder, 'out'), { recursive: true, force: true });
compile();
if (target === prebuildTarget()) checkLoads(built);
const shipped = join(root, 'prebuilds', target, 'engine.node');
mkdirSync(dirname(shipped), { recursive: true });
copyFileSync(built, shipped);
console.log(`${relative(root, shipped)}: ${(statSync(shipped).size / 1024).toFixed(0)} KiB, ${requirements(shipped)}`);

function compile() {
  const compiler = process.env.CXX || zigFor(target);
  const cross = target !== prebuildTarget();
  const [, arch] = /^linux-(x64|arm64)(-musl)?$/.exec(target) ?? [];
  if (cross && (arch === undefined || compiler === null)) {
    fail(`${target} is not this machine (${prebuildTarget()}); build it there, or with a cross compiler (CXX) or zig`);
  }
  const definitions = {
    ENGINE_PORTABLE: 'ON',
    ENGINE_OUTPUT_DIRECTORY: dirname(built),
    ...(cross && { CMAKE_SYSTEM_NAME: 'Linux', CMAKE_SYSTEM_PROCESSOR: processors[arch] }),
  };
  const cmakeJs = join(dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')), 'bin/cmake-js');
  const flags = Object.entries(definitions).map(([name, value]) => `--CD${name}=${value}`);
  const args = [cmakeJs, 'rebuild', '--out', buildFolder, '--parallel', '2', ...flags];
  const env = { ...process.env, ...(compiler !== null && { CXX: compiler }) };
  const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' });
  if (status !== 0) fail('the build failed');
}

/** The compiler that zig is for this target, or null. */
function zigFor(target) {
  const zigTarget = zigTargets[target];
  const zig = process.env.ENGINE_ZIG || 'zig';
  if (zigTarget === undefined) return null;
  if (spawnSync(zig, ['version'], { stdio: 'ignore' }).status === 0) return `${zig} c++ -target ${zigTarget}`;
  if (process.env.ENGINE_ZIG) fail(`ENGINE_ZIG=${zig} cannot be run`);
  return null;
}

/** Loads the binary in another process and compares its ABI number. */
function checkLoads(binary) {
  const loader = pathToFileURL(join(root, 'dist/backend/native-loader.js')).href;
  const script = `(await import('${loader}')).loadNativeAddon()`;
  const env = { ...process.env, ENGINE_ADDON_PATH: binary };
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    env,
    encoding: 'utf8',
  });
  if (status !== 0) fail(`the binary does not work here: ${stderr}`);
}

/** The newest version of each library's symbols that the binary asks for. */
function requirements(binary) {
  const names = readFileSync(binary, 'latin1').match(/(?<=\0)(GLIBC|GLIBCXX|CXXABI)_[0-9.]+(?=\0)/g) ?? [];
  const newest = names
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .reduce((found, name) => {
      return found.set(name.split('_')[0], name);
    }, new Map());
  return newest.size === 0 ? 'no versioned symbols' : `needs ${[...newest.values()].join(', ')}`;
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
