import { write, writeSync } from 'node:fs';

/** Bytes of lines kept for a reader that does not read; more are dropped. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;
/** Bytes written at once. */
const MAX_WRITE_BYTES = 64 * 1024;
/** Milliseconds until a reader that was behind is tried again. */
const RETRY_MS = 50;
/** Milliseconds that a write on its way gets when the process is about to end. */
const LAST_WRITE_MS = 100;

/**
 * Writes lines to a file descriptor in the order in which they came, on other threads than the event loop's. A pipe has
 * to be non-blocking, as Node.js makes stderr's: a write that hangs would keep the process from ending.
 */
export class LogWriter {
  readonly #waiting: Buffer[] = [];
  /** Not all written yet; null between writes. */
  #current: Buffer | null = null;
  #bytes = 0; // of both
  #isOnItsWay = false;
  #retry: NodeJS.Timeout | undefined;
  #whenWritten: (() => void)[] = [];

  constructor(private readonly fd: number) {}

  write(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#bytes + bytes.length > MAX_WAITING_BYTES) return;
    this.#bytes += bytes.length;
    this.#waiting.push(bytes);
    if (this.#current === null) this.#next();
  }

  /** Resolves when all lines have been written, or after this time. Until then nothing else should be written there. */
  written(timeoutMs: number): Promise<void> {
    if (this.#bytes === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#whenWritten.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Writes what is left as far as its reader takes it. Nothing may be written after; for a process that ends at once. */
  finish(): void {
    clearTimeout(this.#retry);
    if (this.#isOnItsWay) {
      // Another thread is at it, and nothing can tell this one that it is done.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LAST_WRITE_MS);
    } else if (this.#current !== null) {
      this.#waiting.unshift(this.#current);
    }
    try {
      for (let rest = Buffer.concat(this.#waiting.splice(0)); rest.length > 0; ) {
        rest = rest.subarray(writeSync(this.fd, rest));
      }
    } catch {
      // the reader is behind, or gone
    }
  }

  /** Starts to write the lines that wait, as many as go at once. */
  #next(): void {
    let bytes = 0;
    let count = 0;
    for (const line of this.#waiting) {
      if (count > 0 && bytes + line.length > MAX_WRITE_BYTES) break;
      bytes += line.length;
      count++;
    }
    this.#current = count === 0 ? null : Buffer.concat(this.#waiting.splice(0, count));
    if (this.#current !== null) {
      this.#write(this.#current);
      return;
    }
    for (const resolve of this.#whenWritten) resolve();
    this.#whenWritten = [];
  }

  #write(bytes: Buffer): void {
    this.#isOnItsWay = true;
    write(this.fd, bytes, 0, bytes.length, null, (error, numWritten) => {
      this.#isOnItsWay = false;
      if (error?.code === 'EAGAIN') {
        this.#retry = setTimeout(() => this.#write(bytes), RETRY_MS).unref();
        return;
      }
      // Another error has nowhere left to be reported.
      const done = error === null ? numWritten : bytes.length;
      this.#bytes -= done;
      this.#current = bytes.subarray(done);
      if (this.#current.length > 0) this.#write(this.#current);
      else this.#next();
    });
  }
}
