// The sources of the addon, for telling whether a binary is older than what it should have been built from.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** All files below a folder, as absolute paths. */
export function filesIn(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** A native source that has changed since the binary was built, as an absolute path; undefined if there is none. */
export function changedSince(binary, root) {
  const built = statSync(binary).mtimeMs;
  const sources = [join(root, 'CMakeLists.txt'), ...filesIn(join(root, 'native')), ...filesIn(join(root, 'kernels'))];
  return sources.find((source) => statSync(source).mtimeMs > built);
}
