import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
if (!existsSync(main)) throw new Error('dist is not built: run `npm run build:ts` (npm test does it)');

export interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Written to stdin, which is then closed. */
  readonly input?: string | Uint8Array;
  readonly env?: Record<string, string>;
  /** Files that get the output instead of the result. */
  readonly stdout?: string;
  readonly stderr?: string;
  /** Called when the first text arrives on stdout. */
  readonly onFirstOutput?: (kill: (signal: NodeJS.Signals) => void) => void;
}

/** Runs the compiled program as a user would. */
export function runCli(args: readonly string[], options: RunOptions = {}): Promise<Run> {
  return new Promise((resolve, reject) => {
    const files = [options.stdout, options.stderr].map((path) => (path === undefined ? null : openSync(path, 'w')));
    const child = spawn(process.execPath, [main, ...args], {
      env: { ...process.env, ...options.env },
      stdio: ['pipe', files[0] ?? 'pipe', files[1] ?? 'pipe'],
    });
    for (const file of files) if (file !== null) closeSync(file);
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (stdout === '') options.onFirstOutput?.((signal) => child.kill(signal));
      stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    child.stdin?.on('error', () => undefined); // the program may end before it reads
    child.stdin?.end(options.input ?? '');
  });
}

/** Runs with --json and returns the object; throws with stderr if the program failed. */
export async function runJson<T = Record<string, unknown>>(
  args: readonly string[],
  options: RunOptions = {},
): Promise<T> {
  const { code, stdout, stderr } = await runCli([...args, '--json'], options);
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`);
  return JSON.parse(stdout) as T;
}
