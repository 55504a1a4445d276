import { writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { afterAll, expect } from 'vitest';
import { Engine } from '../../../src/library/engine.js';
import type { LoadOptions } from '../../../src/library/load-options.js';
import { createServer, type ServerOptions } from '../../../src/server/server.js';
import { temporaryFolder } from '../../backend/temporary-folder.js';

/** The embedded model was not made for conversations; this template lets it continue one. */
const template = `{%- for m in messages -%}
{{- (m.role + ': ' if m.role != 'user' else '') + m.content + '\\n' -}}
{%- endfor -%}`;

export const modelName = 'fable';
export const aliases = ['engine-ts/fable'];
export const apiKeys = [
  { name: 'ann', key: 'key-of-ann' },
  { name: 'bob', key: 'key-of-bob' },
];

export interface RealServer {
  readonly engine: Engine;
  readonly app: FastifyInstance;
  readonly port: number;
  /** http://127.0.0.1:PORT */
  readonly url: string;
}

/** A server on the embedded model, on a free port; both are closed at the end of the test file. */
export async function realServer(load: LoadOptions = {}, options: Partial<ServerOptions> = {}): Promise<RealServer> {
  const chatTemplate = join(temporaryFolder(), 'template.jinja');
  writeFileSync(chatTemplate, template);
  // One thread: its tests share the processors with other test files.
  const engine = await Engine.load({ chatTemplate, contextSize: 1024, batchSize: 4, threads: 1, ...load });
  const app = createServer({ model: Promise.resolve(engine), modelName, aliases, apiKeys, ...options });
  await app.listen({ port: 0, host: '127.0.0.1' });
  afterAll(async () => {
    app.server.closeAllConnections();
    await app.close();
    await engine.dispose();
  });
  const { port } = app.server.address() as AddressInfo;
  return { engine, app, port, url: `http://127.0.0.1:${port}` };
}

/** Waits until nothing runs or waits, in the server and in the engine, and all blocks are free. */
export async function expectIdle({ engine, app }: Pick<RealServer, 'engine' | 'app'>): Promise<void> {
  const state = () => {
    const { running, waiting, blocks } = engine.stats();
    return { requests: app.activity.running, running, waiting, used: blocks.used };
  };
  await expect.poll(state, { timeout: 10_000, interval: 5 }).toEqual({ requests: 0, running: 0, waiting: 0, used: 0 });
}

export const messages = [{ role: 'user' as const, content: 'Once upon a time there was a fox' }];
