import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { EngineError } from '../../base/errors.js';
import type { Program } from '../ours.js';
import { CompletionClient } from './client.js';
import { freePort, launchServer, type RunningServer } from './launch.js';

/** A server that takes part: started for each round, so that the others are measured with no thread of it alive. */
export interface Contender {
  readonly name: string;
  start(signal: AbortSignal): Promise<RunningServer>;
}

/** One that runs already, and goes on. */
export function runningServer(url: string): Contender {
  const server = { url, pid: null, failure: () => null, stop: () => Promise.resolve() };
  return { name: new URL(url).host, start: () => Promise.resolve(server) };
}

/** `engine serve` of this program. */
export function engineServer([command, ...first]: Program, model: string, flags: readonly string[]): Contender {
  const args = [...first, 'serve', '-m', model, '--port', '0', ...flags];
  return {
    name: 'engine-ts',
    start: (signal) => launchServer({ name: 'engine serve', command, args, url: null, signal }),
  };
}

export interface LlamaServerOptions {
  readonly model: string;
  readonly threads: number;
  /** Requests that it works on at once. */
  readonly slots: number;
  /** Tokens of prompt and answer of each. */
  readonly contextSize: number;
}

/** llama.cpp's server, with its defaults but for these sizes and metrics. Throws FILE_NOT_FOUND. */
export function llamaServer(binary: string, options: LlamaServerOptions): Contender {
  if (!existsSync(binary)) throw new EngineError('FILE_NOT_FOUND', { what: 'opponent', path: binary });
  const { model, threads, slots, contextSize } = options;
  const sizes = ['-c', slots * contextSize, '-np', slots, '--threads', threads];
  return {
    name: 'llama.cpp',
    start: async (signal) => {
      const port = await freePort();
      const args = ['-m', model, '-ngl', '0', ...sizes, '--metrics', '--host', '127.0.0.1', '--port', port].map(String);
      const url = `http://127.0.0.1:${port}`;
      return launchServer({ name: basename(binary), command: binary, args, url, signal });
    },
  };
}

export interface ServerDescription {
  /** Of the first model that it serves. */
  readonly model: string;
  /** What it says about that; llama.cpp names both, vLLM the context. */
  readonly vocabSize: number | null;
  readonly contextSize: number | null;
}

/** Asks a server which model it serves. Throws OPPONENT_FAILED and ABORTED. */
export async function describeServer(url: string, apiKey?: string, signal?: AbortSignal): Promise<ServerDescription> {
  const client = new CompletionClient({ url, model: '', stream: false, apiKey });
  try {
    const { data } = Object(JSON.parse(await client.get('/v1/models', signal))) as {
      data?: { id?: unknown; max_model_len?: unknown; meta?: { n_vocab?: unknown; n_ctx?: unknown } | null }[];
    };
    const { id, max_model_len, meta } = data?.[0] ?? {};
    if (typeof id !== 'string') throw new Error('GET /v1/models names no model');
    const size = (value: unknown) => (Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : null);
    return { model: id, vocabSize: size(meta?.n_vocab), contextSize: size(meta?.n_ctx ?? max_model_len) };
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError('OPPONENT_FAILED', { opponent: url, reason: (error as Error).message }, { cause: error });
  } finally {
    client.close();
  }
}
