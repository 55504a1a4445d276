/**
 * Builds the addon for shipping: prebuilds/<platform>-<arch>[-musl]/engine.node, where the loader looks first.
 *
 *     npm run build:prebuild                                  for this machine
 *     npm run build:prebuild -- --target linux-x64-musl       for another (linux-x64, linux-arm64, each also -musl)
 *
 * Kernels are chosen at run time, so one binary serves every processor of an architecture. For Linux the compiler is zig if
 * there is one (ENGINE_ZIG, or on the PATH), which targets any libc from anywhere; otherwise the machine's own compiler
 * builds for the machine's own libc, and the binary needs about as new a glibc as the machine has.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

/** What official builds of Node 20 need. */
const GLIBC = '2.28';
/** Processors by the names of CMake and zig. */
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
  const zig = findZig();
  const [, arch, musl] = /^linux-(x64|arm64)(-musl)?$/.exec(target) ?? [];
  if (arch === undefined ? target !== prebuildTarget() : zig === null && target !== prebuildTarget()) {
    fail(
      `${target} is not this machine (${prebuildTarget()}); build it there, or a Linux target with zig (ENGINE_ZIG)`,
    );
  }
  const definitions = { ENGINE_PORTABLE: 'ON', ENGINE_OUTPUT_DIRECTORY: dirname(built) };
  const environment = { ...process.env };
  if (arch !== undefined && zig !== null) {
    const triple = `${processors[arch]}-linux-${musl ? 'musl' : `gnu.${GLIBC}`}`;
    environment.CXX = `${zig} c++ -target ${triple}`;
    Object.assign(definitions, { CMAKE_SYSTEM_NAME: 'Linux', CMAKE_SYSTEM_PROCESSOR: processors[arch] });
  }
  const cmakeJs = join(dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')), 'bin/cmake-js');
  const flags = Object.entries(definitions).map(([name, value]) => `--CD${name}=${value}`);
  const args = [cmakeJs, 'rebuild', '--out', buildFolder, '--parallel', '2', ...flags];
  const { status } = spawnSync(process.execPath, args, { cwd: root, env: environment, stdio: 'inherit' });
  if (status !== 0) fail('the build failed');
}

function findZig() {
  const zig = process.env.ENGINE_ZIG || 'zig';
  if (spawnSync(zig, ['version'], { stdio: 'ignore' }).status === 0) return zig;
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
