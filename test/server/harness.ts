import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { onTestFinished } from 'vitest';
import { createServer, type ServerOptions } from '../../src/server/server.js';
import { FakeModel } from './fake-model.js';

export interface Running {
  readonly app: FastifyInstance;
  readonly model: FakeModel;
  readonly url: string;
  readonly port: number;
}

/** A server on a free port of this machine, closed when the test has ended. */
export async function start(options: Partial<ServerOptions> = {}): Promise<Running> {
  const model = new FakeModel();
  const app = createServer({ model: Promise.resolve(model), modelName: 'test/model', ...options });
  await app.listen({ port: 0, host: '127.0.0.1' });
  onTestFinished(async () => {
    app.server.closeAllConnections();
    await app.close();
  });
  const { port } = app.server.address() as AddressInfo;
  return { app, model, url: `http://127.0.0.1:${port}`, port };
}

// biome-ignore lint/suspicious/noExplicitAny: answers are looked into by tests, which fail where they differ
export type Json = any;

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Json;
}

export async function send(url: string, init?: RequestInit): Promise<Reply> {
  const response = await fetch(url, init);
  const text = await response.text();
  return { status: response.status, headers: response.headers, json: text === '' ? null : JSON.parse(text) };
}

export function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Reply> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return send(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: text });
}

/** Data of a stream's events, parsed; `[DONE]` as a string. */
export async function events(url: string, body: object, signal?: AbortSignal): Promise<Json[]> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
    ...(signal !== undefined && { signal }),
  });
  return parseEvents(await response.text());
}

export function parseEvents(text: string): Json[] {
  const blocks = text.split('\n\n').filter((block) => block.startsWith('data: '));
  return blocks.map((block) => (block === 'data: [DONE]' ? '[DONE]' : JSON.parse(block.slice(6))));
}

export const chat = { messages: [{ role: 'user', content: 'Hi' }] };

/** Waits until something holds; fails after two seconds. */
export async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; !holds(); i++) {
    if (i > 400) throw new Error('it did not come to pass in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
