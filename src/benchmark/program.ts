import { spawn } from 'node:child_process';
import { EngineError } from '../base/errors.js';

/** Of a program's stdout and stderr: far more than any report. */
const MAX_OUTPUT_BYTES = 1 << 26;

export interface ProgramOptions {
  /** Names it in messages. */
  readonly name: string;
  /** Besides the environment of this process. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Kills the program; the result is ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/** Runs a program to its end and gives its stdout. Throws OPPONENT_FAILED with the last line of stderr, and ABORTED. */
export function runProgram(command: string, args: readonly string[], options: ProgramOptions): Promise<string> {
  const { name, env, signal } = options;
  const failed = (reason: string, cause?: unknown) =>
    new EngineError('OPPONENT_FAILED', { opponent: name, reason }, { cause });
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new EngineError('ABORTED', {}));
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    const output = { stdout: '', stderr: '' };
    const onAbort = () => child.kill('SIGKILL');
    signal?.addEventListener('abort', onAbort, { once: true });
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].setEncoding('utf8').on('data', (text: string) => {
        output[stream] += text;
        if (output[stream].length > MAX_OUTPUT_BYTES) child.kill('SIGKILL');
      });
    }
    const done = () => signal?.removeEventListener('abort', onAbort);
    child.on('error', (error: NodeJS.ErrnoException) => {
      done();
      const reason = error.code === 'ENOENT' ? `${command} does not exist` : error.message;
      reject(failed(error.code === 'EACCES' ? `${command} may not be run` : reason, error));
    });
    child.on('close', (code, killedBy) => {
      done();
      if (signal?.aborted) reject(new EngineError('ABORTED', {}));
      else if (code === 0) resolve(output.stdout);
      else reject(failed(lastLine(output.stderr) || `it ended with ${killedBy ?? `exit code ${code}`}`));
    });
  });
}

/** The JSON value on the last line of an output that has one. Throws OPPONENT_FAILED. */
export function lastJson(name: string, output: string): unknown {
  const line = lastLine(output);
  try {
    return JSON.parse(line) as unknown;
  } catch (error) {
    throw new EngineError(
      'OPPONENT_FAILED',
      { opponent: name, reason: `it printed no JSON but ${line}` },
      { cause: error },
    );
  }
}

/** Numbers under a key of each of these objects. Throws OPPONENT_FAILED. */
export function numbersOf(name: string, objects: readonly unknown[], key: string): number[] {
  const numbers = objects.flatMap((object) => (Object(object) as Record<string, unknown>)[key]);
  if (numbers.length > 0 && numbers.every((value) => typeof value === 'number' && Number.isFinite(value))) {
    return numbers as number[];
  }
  throw new EngineError('OPPONENT_FAILED', { opponent: name, reason: `its report has no numbers under ${key}` });
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}
