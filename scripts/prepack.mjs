// Before `npm pack` and `npm publish`: compiles dist/ afresh, so that nothing of deleted sources is shipped, and refuses
// prebuilt binaries that are older than the native sources.
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { changedSince, filesIn } from './native-sources.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const prebuilds = join(root, 'prebuilds');

for (const binary of existsSync(prebuilds) ? filesIn(prebuilds) : []) {
  const source = changedSince(binary, root);
  if (source === undefined) continue;
  console.error(
    `${relative(root, binary)} is older than ${relative(root, source)}: npm run build:prebuild, or delete it`,
  );
  process.exit(1);
}
rmSync(join(root, 'dist'), { recursive: true, force: true });
execFileSync(process.execPath, [join(root, 'scripts/build-ts.mjs')], { cwd: root, stdio: 'inherit' });
