// Compiles the TypeScript into dist/: the library and the program, then the playground, which is code for browsers and
// brings a page and its style. All of it is tried even if a part has errors; the exit status tells.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const compiler = join(root, 'node_modules/typescript/bin/tsc');

const statuses = ['tsconfig.build.json', 'src/playground/tsconfig.json'].map(
  (project) => spawnSync(process.execPath, [compiler, '-p', project], { cwd: root, stdio: 'inherit' }).status,
);
mkdirSync(join(root, 'dist/playground'), { recursive: true });
for (const name of readdirSync(join(root, 'src/playground'))) {
  if (!/\.(html|css|svg)$/.test(name)) continue;
  copyFileSync(join(root, 'src/playground', name), join(root, 'dist/playground', name));
}
process.exitCode = statuses.every((status) => status === 0) ? 0 : 1;
