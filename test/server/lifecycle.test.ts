import { EventEmitter, once } from 'node:events';
import { createServer as createTcpServer } from 'node:net';
import fastify from 'fastify';
import pino from 'pino';
import { describe, expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { Activity } from '../../src/server/activity.js';
import { type RunOptions, runServer } from '../../src/server/lifecycle.js';
import { RequestScope } from '../../src/server/request-scope.js';

/** A server with one route that answers when it is told to, or when its request is aborted. */
function started(options: Partial<RunOptions> = {}) {
  const source = new EventEmitter();
  const activity = new Activity(10);
  const released = new EventEmitter();
  const lines: { msg: string }[] = [];
  const state = { disposed: false, loadingAborted: false, exits: [] as number[] };
  const app = fastify();
  app.get('/', async () => {
    const nothing = { tokens: () => undefined, end: () => undefined };
    const scope = new RequestScope('id', undefined, nothing, 60_000);
    activity.begin(scope);
    released.emit('running');
    try {
      await Promise.race([once(released, 'release'), once(scope.signal, 'abort')]);
      return scope.signal.aborted ? 'aborted' : 'complete';
    } finally {
      activity.end(scope);
      scope.end(200, 0);
    }
  });
  let url = '';
  const done = runServer(app, {
    activity,
    host: '127.0.0.1',
    port: 0,
    drainTimeoutMs: 20_000,
    log: pino({ base: null }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
    model: Promise.resolve({
      dispose: async () => {
        state.disposed = true;
      },
    }),
    abortLoading: () => {
      state.loadingAborted = true;
    },
    onListening: (at) => {
      url = at;
      source.emit('listening');
    },
    source,
    exit: (code) => void state.exits.push(code),
    ...options,
  });
  const ask = async () => (await fetch(url)).text();
  return { source, activity, released, state, done, ask, messages: () => lines.map(({ msg }) => msg) };
}

describe('runServer', () => {
  it('lets running requests end before it stops, then disposes the model', async () => {
    const { source, activity, released, state, done, ask } = started();
    await once(source, 'listening');
    const answer = ask();
    await once(released, 'running');
    source.emit('SIGTERM');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(activity.draining).toBe(true);
    expect(state.disposed).toBe(false);
    released.emit('release');
    expect(await answer).toBe('complete');
    await done;
    expect(state).toEqual({ disposed: true, loadingAborted: true, exits: [] });
    expect(source.eventNames()).not.toContain('SIGTERM');
  });

  it('aborts what has not ended in time', async () => {
    const { source, released, state, done, ask, messages } = started({ drainTimeoutMs: 30 });
    await once(source, 'listening');
    const answer = ask();
    await once(released, 'running');
    source.emit('SIGINT');
    expect(await answer).toBe('aborted');
    await done;
    expect(state.disposed).toBe(true);
    expect(messages().join()).toContain('aborted');
  });

  it('ends the process at the second signal', async () => {
    const { source, released, state, done, ask } = started();
    await once(source, 'listening');
    const answer = ask();
    await once(released, 'running');
    source.emit('SIGTERM');
    source.emit('SIGTERM');
    source.emit('SIGINT');
    expect(state.exits).toEqual([143, 130]);
    released.emit('release');
    await answer;
    await done;
  });

  it('stops while the model is being loaded', async () => {
    const loading = new AbortController();
    const model = once(loading.signal, 'abort').then(() => Promise.reject(new EngineError('ABORTED', {})));
    const { source, done } = started({ model, abortLoading: () => loading.abort() });
    await once(source, 'listening');
    source.emit('SIGTERM');
    await done;
  });

  it('ends with the error of a model that cannot be loaded', async () => {
    const error = new EngineError('FILE_NOT_FOUND', { what: 'model', path: 'nowhere' });
    const { done } = started({ model: Promise.reject(error) });
    await expect(done).rejects.toBe(error);
  });

  it('says when a port is taken', async () => {
    const other = createTcpServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    const { done, state } = started({ port });
    await expect(done).rejects.toMatchObject({ code: 'LISTEN_FAILED', blame: 'user' });
    expect(state.disposed).toBe(true);
    other.close();
  });

  it('goes on after an exception that nobody caught, and ends after too many', async () => {
    const { source, released, done, ask, messages } = started();
    const ended = expect(done).rejects.toMatchObject({ code: 'INTERNAL' });
    await once(source, 'listening');
    source.emit('uncaughtException', new Error('one connection'));
    source.emit('unhandledRejection', new Error('another'));
    expect(messages()).toEqual(['uncaught exception', 'unhandled rejection']);
    const answer = ask();
    await once(released, 'running');
    released.emit('release');
    expect(await answer).toBe('complete');
    for (let times = 0; times < 10; times++) source.emit('uncaughtException', new Error('all of them'));
    await ended;
  });
});
