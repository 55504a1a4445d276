import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { EngineError } from '../../base/errors.js';
import { CompletionClient } from './client.js';

/** A server while it is measured. */
export interface RunningServer {
  readonly url: string;
  /** Null if it was not started here. */
  readonly pid: number | null;
  /** Why it has ended, if it has. */
  failure(): string | null;
  /** Asks it to end, and ends it if it does not. */
  stop(): Promise<void>;
}

export interface Launch {
  /** Names it in messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Where it will listen; null: it says so in its first URL on stderr. */
  readonly url: string | null;
  readonly signal: AbortSignal;
}

/** To be ready, a model of any size read from any disk. */
const START_MS = 600_000;
const POLL_MS = 20;
/** To end by itself. */
const STOP_MS = 10_000;
/** Of its output, in UTF-16 code units. */
const KEPT_OUTPUT = 1 << 16;

/** Starts a server and waits until /health says that it is ready. Throws OPPONENT_FAILED and ABORTED. */
export async function launchServer({ name, command, args, url, signal }: Launch): Promise<RunningServer> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let log = '';
  let end: string | null = null;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-KEPT_OUTPUT);
    url ??= /https?:\/\/[\w.:[\]-]+/.exec(log)?.[0] ?? null;
  });
  const ended = new Promise<void>((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      end = error.code === 'ENOENT' ? `${command} does not exist` : error.message;
      resolve();
    });
    child.on('close', (code, killedBy) => {
      end ??= lastLine(log) || `it ended with ${killedBy ?? `exit code ${code}`}`;
      resolve();
    });
  });
  const server = {
    pid: child.pid ?? null,
    failure: () => end,
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(kill, STOP_MS);
      await ended;
      clearTimeout(timer);
      process.off('exit', kill);
    },
  };
  const deadline = performance.now() + START_MS;
  const failed = (reason: string) => new EngineError('OPPONENT_FAILED', { opponent: name, reason });
  try {
    while (url === null || !(await isReady(url, signal))) {
      if (signal.aborted) throw new EngineError('ABORTED', {});
      if (end !== null) throw failed(end);
      if (performance.now() > deadline) throw failed(`it was not ready in ${START_MS / 1000} s`);
      await sleep(POLL_MS);
    }
    return { ...server, url };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function isReady(url: string, signal: AbortSignal): Promise<boolean> {
  const client = new CompletionClient({ url, model: '', stream: false });
  try {
    await client.get('/health', signal);
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}

/** A port that nobody listens on now, for servers that cannot say which they were given. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => (typeof address === 'object' && address !== null ? resolve(address.port) : reject()));
    });
  });
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}
