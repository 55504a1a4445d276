import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import type { Json } from '../harness.js';

/** A bare connection that does whatever a test makes it do; gone when the test has ended. */
export class RawClient {
  readonly socket: Socket;
  /** What the server has sent, one character a byte. */
  received = '';
  readonly #closed: Promise<unknown>;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.setEncoding('latin1').on('data', (text: string) => {
      this.received += text;
    });
    this.socket.on('error', () => undefined); // resets are what many of these tests expect
    this.#closed = once(this.socket, 'close');
    onTestFinished(() => {
      this.socket.destroy();
    });
  }

  write(...pieces: readonly (string | Buffer)[]): this {
    for (const piece of pieces) this.socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece);
    return this;
  }

  /** Sends a byte at a time, until the server has had enough or the text is over. */
  async drip(text: string, ms: number): Promise<void> {
    for (const byte of text) {
      if (this.socket.destroyed || !this.socket.writable) return;
      this.write(byte);
      await sleep(ms);
    }
  }

  /** All that the server sends until it closes the connection. */
  async untilClosed(): Promise<string> {
    await this.#closed;
    return this.received;
  }
}

/** What the server answers to these bytes, if it then closes the connection: send `connection: close`. */
export function exchange(port: number, ...pieces: readonly (string | Buffer)[]): Promise<string> {
  return new RawClient(port).write(...pieces).untilClosed();
}

/** The first line's number. */
export function statusOf(reply: string): number {
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(reply)?.[1] ?? Number.NaN);
}

/** An HTTP request as text; `headers` are lines. */
export function requestText(
  method: string,
  path: string,
  headers: readonly string[] = ['host: localhost', 'connection: close'],
  body?: string,
): string {
  const length = body === undefined ? [] : ['content-type: application/json', `content-length: ${body.length}`];
  return `${[`${method} ${path} HTTP/1.1`, ...headers, ...length].join('\r\n')}\r\n\r\n${body ?? ''}`;
}

/** A request with a JSON body, on a connection that stays open. */
export function postText(path: string, body: Json): string {
  return requestText('POST', path, ['host: localhost'], JSON.stringify(body));
}
