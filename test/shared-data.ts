import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'vitest';

/** The folder of test data that lies outside of the repository; it may be absent. */
const root = resolve(
  process.env.ENGINE_SHARED_DATA || join(fileURLToPath(new URL('..', import.meta.url)), '../shared/data'),
);

/** Absolute path of a file or folder of the shared test data, or null where it is absent. */
export function sharedData(relativePath: string): string | null {
  const path = join(root, relativePath);
  return existsSync(path) ? path : null;
}

/** Why a test that needs this path is skipped; part of the test's name, so that a report counts reasons. */
export function skipReason(relativePath: string): string {
  return `skipped: no shared test data ${relativePath}`;
}

/**
 * Registers a test that needs shared test data; without it, a skipped test whose name states the reason.
 * `body` gets the absolute path.
 */
export function itWithData(
  relativePath: string,
  name: string,
  body: (path: string) => void | Promise<void>,
  timeoutMs?: number,
): void {
  const path = sharedData(relativePath);
  if (path === null) test.skip(`${name} (${skipReason(relativePath)})`, () => {});
  else test(name, () => body(path), timeoutMs);
}
