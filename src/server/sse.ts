import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { EngineError } from '../base/errors.js';
import type { ServerLimits } from './limits.js';

export type StreamLimits = Pick<ServerLimits, 'readerBytes' | 'readerTimeoutMs' | 'keepAliveMs'>;

/**
 * Server-sent events, written to the raw response. What is sent in one turn of the event loop (a step's tokens of all
 * answers) is one write. A client that does not read holds at most readerBytes here, plus the system's own buffers:
 * the writer waits with `ready()`, and a client that stays behind too long is given up.
 */
export class EventStream {
  readonly #raw: ServerResponse;
  readonly #keepAlive: NodeJS.Timeout;
  #pending = '';
  #scheduled = false;
  #quiet = false;
  #drained: Promise<void> | null = null;

  /** Sends the head. `giveUp` is told why the client is given up; the connection is closed by then. */
  constructor(
    reply: FastifyReply,
    readonly limits: StreamLimits,
    readonly giveUp: (reason: EngineError) => void,
  ) {
    reply.hijack();
    this.#raw = reply.raw;
    this.#raw.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no', // nginx would collect the events otherwise
    });
    this.#keepAlive = setInterval(() => this.#comment(), limits.keepAliveMs).unref();
    this.#raw.once('close', () => clearInterval(this.#keepAlive));
  }

  /** Text of whole events: `data: …` and an empty line each. */
  send(events: string): void {
    if (events === '') return;
    this.#pending += events;
    if (this.#scheduled) return;
    this.#scheduled = true;
    process.nextTick(() => this.#flush()); // after all that this turn's promises have to say
  }

  /** Waits while the client is behind; rejects with CLIENT_TOO_SLOW. */
  async ready(): Promise<void> {
    const raw = this.#raw;
    if (raw.writableLength + this.#pending.length <= this.limits.readerBytes) return;
    this.#flush();
    if (!raw.writableNeedDrain) return; // gone, or the system has taken it all
    this.#drained ??= this.#drain().finally(() => {
      this.#drained = null;
    });
    await this.#drained; // one wait for all prompts of the request
  }

  async #drain(): Promise<void> {
    const raw = this.#raw;
    const { readerTimeoutMs } = this.limits;
    await new Promise<void>((resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        raw.off('drain', done).off('close', done);
        resolve();
      };
      const timer = setTimeout(() => {
        raw.off('drain', done).off('close', done);
        const reason = tooSlow(readerTimeoutMs);
        raw.destroy();
        this.giveUp(reason);
        reject(reason);
      }, readerTimeoutMs);
      raw.on('drain', done).on('close', done);
    });
  }

  end(): void {
    this.#flush();
    clearInterval(this.#keepAlive);
    closeIfUnread(this.#raw, this.limits.readerTimeoutMs);
    this.#raw.end();
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#pending === '' || this.#raw.destroyed) return;
    this.#raw.write(this.#pending);
    this.#pending = '';
    this.#quiet = false;
  }

  #comment(): void {
    // To a client that is behind it would say nothing.
    if (this.#quiet && this.#raw.writableLength === 0 && !this.#raw.destroyed) this.#raw.write(': keep-alive\n\n');
    this.#quiet = true;
  }
}

const tooSlow = (ms: number) => new EngineError('CLIENT_TOO_SLOW', { seconds: ms / 1000, what: 'read the answer' });

/** Closes the connection if the client has not read a complete answer in time. */
export function closeIfUnread(raw: ServerResponse, timeoutMs: number): void {
  const timer = setTimeout(() => raw.destroy(), timeoutMs).unref();
  raw.once('close', () => clearTimeout(timer));
}
