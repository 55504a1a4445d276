import { spawn } from 'node:child_process';
import { wholeNumber } from '../base/whole-number.js';

const MOST_NEIGHBOURS = 256;

/** Ends when the process that started it has. */
const BUSY_LOOP = 'const parent = process.ppid; while (process.ppid === parent);';

/**
 * Runs something while `count` other processes keep a processor busy each, as in a container or on a CI machine. Throws
 * OPTION_INVALID.
 */
export async function withNeighbours<Result>(count: number, run: () => Promise<Result>): Promise<Result> {
  wholeNumber('--neighbours', count, 0, MOST_NEIGHBOURS);
  const loops = Array.from({ length: count }, () =>
    spawn(process.execPath, ['-e', BUSY_LOOP], { stdio: 'ignore' }).on('error', () => undefined),
  );
  try {
    return await run();
  } finally {
    for (const loop of loops) loop.kill('SIGKILL');
  }
}
