import { describe } from 'vitest';
import { cudaInfo } from '../../src/backend/native-cuda.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { checkCudaSessions } from './cuda-session-checks.js';

const { library, devices } = cudaInfo();
const noDevice =
  notBuilt ??
  (library === null
    ? ' (skipped: no CUDA library)'
    : devices.length === 0
      ? ' (skipped: no CUDA device)'
      : !devices[0]!.usable
        ? ' (skipped: no CUDA device of compute capability 8.0 or later)'
        : null);
const folder = temporaryFolder();

// gpu-check.sh has seen a GPU, so that skipping would hide what is wrong.
describe.skipIf(noDevice !== null && process.env.ENGINE_REQUIRE_GPU !== '1')(
  `a session on the first GPU${noDevice ?? ''}`,
  { timeout: 120_000 },
  () => {
    checkCudaSessions(() => library!, folder);
  },
);
