import { EngineError } from '../base/errors.js';
import type { Engine } from '../library/engine.js';
import type { Outcome } from '../serving/completer.js';

/**
 * Writes to stdout, waiting while the reader is slow. When nothing more can be written, `closed` turns true and the rest
 * is dropped. A reader that has gone away (`| head`) is no error; any other reason, such as a full disk, is reported and
 * decides the exit code.
 */
export class Output {
  closed = false;

  constructor(readonly stream: NodeJS.WriteStream = process.stdout) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.closed = true;
      if (error.code === 'EPIPE') return;
      process.exitCode = reportError(new EngineError('FILE_UNWRITABLE', { path: 'stdout', reason: error.message }));
    });
  }

  async write(text: string): Promise<void> {
    if (text === '' || this.closed) return;
    if (!this.stream.write(text)) {
      await new Promise<void>((resolve) => {
        const done = () => {
          this.stream.off('drain', done).off('close', done).off('error', done);
          resolve();
        };
        this.stream.on('drain', done).on('close', done).on('error', done);
      });
    }
  }

  /** One JSON document on one line. */
  json(value: unknown): Promise<void> {
    return this.write(`${JSON.stringify(value)}\n`);
  }
}

/** Progress, warnings and statistics: everything that is not the answer. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

const exitCodes = { user: 2, engine: 1, interrupt: 130 } as const;

/** Prints one line about an error and returns the exit code: 1 our fault, 2 the user's, 130 interrupted. */
export function reportError(error: unknown): number {
  const known =
    error instanceof EngineError ? error : new EngineError('INTERNAL', { problem: messageOf(error) }, { cause: error });
  note(`engine: [${known.code}] ${inFlags(known)}`);
  if (process.env.ENGINE_DEBUG && error instanceof Error) note(error.stack ?? '');
  return exitCodes[known.blame];
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The library speaks of maxTokens; at the terminal it is --max-tokens. */
function inFlags(error: EngineError): string {
  if (error.code !== 'OPTION_INVALID') return error.message;
  const { option } = error.parameters as { option: string };
  if (!/^[a-z]+$/i.test(option)) return error.message; // a flag or a command already
  const name = option === 'repetitionPenalty' ? 'repeatPenalty' : option;
  const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  return flag + error.message.slice(option.length);
}

/** 1536 → "1.5 KiB" */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[power]}`;
}

/** Aligned "name  value" lines. */
export function formatTable(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join('');
}

/** What --stats writes. */
export function statistics(engine: Engine, { usage, timings, finishReason }: Outcome): string {
  return [
    `${engine.model.name} on ${engine.backend}, loaded in ${engine.loadMs.toFixed(0)} ms`,
    `prompt  ${usage.promptTokens} tokens, ${timings.prefillTokensPerSecond.toFixed(1)} tokens/s, first token after ${timings.ttftMs.toFixed(1)} ms`,
    `answer  ${usage.completionTokens} tokens, ${timings.decodeTokensPerSecond.toFixed(1)} tokens/s, finish reason ${finishReason}`,
  ].join('\n');
}
