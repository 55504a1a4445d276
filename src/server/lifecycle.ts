import type { EventEmitter } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { EngineError } from '../base/errors.js';
import type { Activity } from './activity.js';

export interface RunOptions {
  /** The server's requests. */
  readonly activity: Pick<Activity, 'running' | 'drain' | 'idle' | 'abort'>;
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Milliseconds that running requests get to finish, once the server has to stop. */
  readonly drainTimeoutMs: number;
  readonly log: Logger;
  /** What is disposed at the end; its failure ends the server. */
  readonly model: Promise<{ dispose(): Promise<void> }>;
  /** Called when the server has to stop, for a model that is still being loaded. */
  readonly abortLoading: () => void;
  /** Fastify has logged it by then. */
  readonly onListening: (url: string) => void;
  /** Where signals and uncaught exceptions come from. Default: this process. */
  readonly source?: EventEmitter;
  /** Ends the process, at the second signal and each that follows. */
  readonly exit?: (code: number) => void;
}

const signals = { SIGINT: 130, SIGTERM: 143 } as const;

/** Uncaught exceptions within a minute after which the server no longer trusts itself. */
const MAX_EXCEPTIONS = 10;
const MINUTE_MS = 60_000;
/** Milliseconds that the last bytes get to leave, before connections are cut. */
const LAST_WORDS_MS = 1000;

/**
 * Serves until a signal comes, then drains: `/health` and new requests get 503, running ones go on to their end, or are
 * aborted after the timeout; then the model is disposed. A second signal ends the process at once.
 *
 * An exception that nobody caught, or a rejection that nobody awaited, is a fault in one request's handling: engine and
 * backend report theirs through promises. So it is logged and the server goes on; when there are too many of them it
 * drains and ends with INTERNAL, so that whoever watches it starts it anew.
 *
 * Throws LISTEN_FAILED, and what the model's loading threw.
 */
export async function runServer(app: FastifyInstance, options: RunOptions): Promise<void> {
  const { host, port, log, model, source = process, exit = process.exit } = options;
  const events = new ServerEvents(source, log, exit);
  model.catch(() => undefined); // it may fail before the port listens, and is looked at after
  try {
    try {
      await app.listen({ host, port, listenTextResolver: (url) => `listening on ${url}` });
    } catch (error) {
      throw new EngineError('LISTEN_FAILED', { host, port, reason: (error as Error).message }, { cause: error });
    }
    options.onListening(urlOf(app));
    const failed = model.then(() => new Promise<never>(() => undefined));
    const signal = await Promise.race([events.stopped, failed]);
    log.info({ signal, running: options.activity.running }, 'draining');
  } finally {
    options.abortLoading();
    await drain(app, options);
    const loaded = await model.catch(() => null);
    await loaded?.dispose();
    events.stop();
  }
  log.info('stopped');
}

async function drain(app: FastifyInstance, { activity, drainTimeoutMs, log }: RunOptions): Promise<void> {
  activity.drain();
  if (!(await settles(activity.idle(), drainTimeoutMs))) {
    log.warn({ aborted: activity.running }, 'requests were aborted, since the drain timeout has passed');
    activity.abort();
    await settles(activity.idle(), LAST_WORDS_MS);
  }
  const closed = app.close();
  if (!(await settles(closed, LAST_WORDS_MS))) app.server.closeAllConnections();
  await closed;
}

/** Whether a promise settles within a time. */
async function settles(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, false);
  });
  const settled = await Promise.race([promise.then(() => true), timeout]);
  clearTimeout(timer);
  return settled;
}

function urlOf(app: FastifyInstance): string {
  const { address, family, port } = app.server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

/** What happens to the process. */
class ServerEvents {
  /** The signal that asks for an end; rejects with INTERNAL after too many uncaught exceptions. */
  readonly stopped: Promise<string>;
  readonly #listeners: Readonly<Record<string, (value: unknown) => void>>;

  constructor(
    private readonly source: EventEmitter,
    private readonly log: Logger,
    exit: (code: number) => void,
  ) {
    let resolve: (signal: string) => void;
    let reject: (error: unknown) => void;
    this.stopped = new Promise((...settle) => {
      [resolve, reject] = settle;
    });
    this.stopped.catch(() => undefined); // listening may fail before anybody waits for it
    let hasSignal = false;
    const onSignal = (signal: keyof typeof signals) => () => {
      if (hasSignal) exit(signals[signal]);
      hasSignal = true;
      resolve(signal);
    };
    const times: number[] = [];
    const onFault = (what: string) => (error: unknown) => {
      this.log.error({ err: error }, what);
      const now = performance.now();
      times.push(now);
      while (times[0]! < now - MINUTE_MS) times.shift();
      if (times.length > MAX_EXCEPTIONS)
        reject(new EngineError('INTERNAL', { problem: `${times.length} exceptions in a minute were not caught` }));
    };
    this.#listeners = {
      SIGTERM: onSignal('SIGTERM'),
      SIGINT: onSignal('SIGINT'),
      uncaughtException: onFault('uncaught exception'),
      unhandledRejection: onFault('unhandled rejection'),
    };
    for (const [event, listener] of Object.entries(this.#listeners)) source.on(event, listener);
  }

  stop(): void {
    for (const [event, listener] of Object.entries(this.#listeners)) this.source.off(event, listener);
  }
}
