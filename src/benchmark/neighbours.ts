import { spawn } from 'node:child_process';
import { EngineError } from '../base/errors.js';

const MOST_NEIGHBOURS = 256;

/** Ends when the process that started it has. */
const BUSY_LOOP = 'const parent = process.ppid; while (process.ppid === parent);';

/**
 * Runs something while `count` other processes keep a processor busy each, as in a container or on a CI machine. Throws
 * OPTION_INVALID.
 */
export async function withNeighbours<Result>(count: number, run: () => Promise<Result>): Promise<Result> {
  if (!Number.isInteger(count) || count < 0 || count > MOST_NEIGHBOURS) {
    const expected = `a whole number from 0 to ${MOST_NEIGHBOURS}`;
    throw new EngineError('OPTION_INVALID', { option: '--neighbours', value: count, expected });
  }
  const loops = Array.from({ length: count }, () =>
    spawn(process.execPath, ['-e', BUSY_LOOP], { stdio: 'ignore' }).on('error', () => undefined),
  );
  try {
    return await run();
  } finally {
    for (const loop of loops) loop.kill('SIGKILL');
  }
}
