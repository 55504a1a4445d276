import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Places where a file of this package may lie that code cannot carry inside itself (the addon, the reference worker, the
 * embedded model), best first. `path` is relative to the package. For a bundle the first place is beside it, under the
 * file's bare name; then comes the package, if it is installed where the bundle can see it.
 */
export function packagePlaces(path: string): string[] {
  const root = packageRoot();
  return [...besideBundle(basename(path)), ...(root === null ? [] : [join(root, path)])];
}

/** The first of these places that exists, or null. */
export function packageFile(path: string): string | null {
  return packagePlaces(path).find((place) => existsSync(place)) ?? null;
}

/** The path beside the bundle or the single executable that this code is a part of; none outside of bundles. */
export function besideBundle(name: string): string[] {
  const here = thisFile();
  return isPackage(folderOf(here)) ? [] : [join(dirname(here), name)];
}

/** The folder of the package's package.json, or null for a bundle without the package. */
export function packageRoot(): string | null {
  const here = thisFile();
  if (isPackage(folderOf(here))) return folderOf(here);
  // Some bundlers fill in paths of the machine they ran on, so the program that was started counts too.
  for (const start of [here, process.argv[1] ?? here]) {
    try {
      return dirname(createRequire(start).resolve('engine-ts/package.json'));
    } catch {
      // not installed there
    }
  }
  return null;
}

/** This file, or the bundle it has become a part of, or the single executable. */
function thisFile(): string {
  // A bundle in CommonJS form has no import.meta.url; it has __filename, which in a single executable is the executable.
  const url: string | undefined = import.meta.url;
  if (url?.startsWith('file:')) return fileURLToPath(url);
  return typeof __filename === 'string' ? __filename : process.execPath;
}

/** Where package.json lies if the file is not in a bundle: two folders above, from src/ and dist/ alike. */
function folderOf(file: string): string {
  return join(dirname(file), '../..');
}

function isPackage(folder: string): boolean {
  try {
    return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: unknown }).name === 'engine-ts';
  } catch {
    return false;
  }
}
