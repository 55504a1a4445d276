const WIDTH = 24;
/** Between two drawings, in milliseconds. */
const INTERVAL = 100;

/** One line on a terminal (stderr) that is written over; nothing elsewhere. */
export class ProgressBar {
  readonly #stream = process.stderr;
  #drawn = Number.NEGATIVE_INFINITY;
  #isShown = false;

  constructor(readonly label: string) {}

  /** `done` of `total`, of whatever kind; `note` says it in units. */
  show(done: number, total: number, note = ''): void {
    const now = performance.now();
    if (now - this.#drawn < INTERVAL && done < total) return;
    this.#drawn = now;
    const part = total > 0 ? Math.min(1, done / total) : 1;
    const full = Math.round(WIDTH * part);
    this.#write(`${this.label} ${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${Math.floor(100 * part)} % ${note}`);
  }

  /** What is being done, where nobody knows how long it will take. */
  say(what: string): void {
    this.#write(`${this.label} ${what}`);
  }

  clear(): void {
    if (this.#isShown) this.#stream.write('\r\x1b[K');
    this.#isShown = false;
  }

  #write(line: string): void {
    if (!this.#stream.isTTY) return;
    this.#isShown = true;
    this.#stream.write(`\r\x1b[K${line.slice(0, this.#stream.columns - 1)}`);
  }
}
