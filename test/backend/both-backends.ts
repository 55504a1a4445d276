import { describe } from 'vitest';
import type { Backend } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { referenceBackend } from '../../src/backend/reference-session.js';
import { packageFile } from '../../src/base/package-files.js';
import { notBuilt } from './native-availability.js';

const noWorker =
  packageFile('dist/backend/reference-worker.js') === null
    ? ' (skipped: dist/ is not built, run npm run build:ts)'
    : null;

/** The same tests on the reference and on native code. */
export function describeOnBackends(name: string, tests: (load: Backend['load'], isNative: boolean) => void): void {
  describe.skipIf(noWorker)(`${name}, reference${noWorker ?? ''}`, () => {
    tests((...args) => referenceBackend().load(...args), false);
  });
  describe.skipIf(notBuilt)(`${name}, native${notBuilt ?? ''}`, () => {
    tests((...args) => nativeCpuBackend({ threads: 2, chunkTime: 0 }).load(...args), true);
  });
}
