import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** A folder of its own for a test file, removed at its end. */
export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'engine-test-'));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
