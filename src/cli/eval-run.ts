import type { EvaluationOptions, EvaluationProgress } from '../evaluation/evaluation.js';
import type { EvaluationFlags } from './eval-input.js';
import { readSaved, writeSaved } from './eval-resume.js';
import { note, Output } from './output.js';

/**
 * Runs an evaluation with a progress line, saving after every window, and prints its result. Ctrl-C ends it with ABORTED,
 * twice at once.
 */
export async function runEvaluation<R>(
  flags: EvaluationFlags,
  evaluate: (options: EvaluationOptions & { readonly signal: AbortSignal }) => Promise<R>,
  print: { readonly measure: string; readonly json: (result: R) => unknown; readonly text: (result: R) => string },
): Promise<void> {
  const interrupt = new AbortController();
  const onInterrupt = () => (interrupt.signal.aborted ? process.exit(130) : interrupt.abort());
  process.on('SIGINT', onInterrupt);
  const line = new ProgressLine(print.measure);
  const { resume: path, window, stride, maxTokens } = flags;
  let saved = path === undefined ? null : readSaved(path);
  const output = new Output();
  try {
    const result = await evaluate({
      window,
      stride,
      maxTokens,
      ...(saved && { resume: saved }),
      signal: interrupt.signal,
      onWindow: (progress) => {
        if (path !== undefined) {
          saved = progress.save();
          writeSaved(path, saved);
        }
        line.show(progress);
      },
    });
    line.clear();
    await (flags.json ? output.json(print.json(result)) : output.write(print.text(result)));
  } catch (error) {
    line.clear();
    if (interrupt.signal.aborted && saved !== null) {
      note(`engine: ${path} keeps ${saved.windows} windows; the same command goes on from there`);
    }
    throw error;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

/** One line on a terminal that is written over; nothing elsewhere. */
class ProgressLine {
  readonly #stream = process.stderr;
  #shown = 0; // when, in milliseconds

  /** What the value of a progress is. */
  constructor(readonly measure: string) {}

  show({ windows, numWindows, tokens, numTokens, tokensPerSecond, value }: EvaluationProgress): void {
    const now = performance.now();
    if (!this.#stream.isTTY || (now - this.#shown < 100 && windows < numWindows)) return;
    this.#shown = now;
    const width = 24;
    const full = Math.round((width * windows) / numWindows);
    const bar = '█'.repeat(full) + '░'.repeat(width - full);
    const left = tokensPerSecond > 0 ? `, ${duration((numTokens - tokens) / tokensPerSecond)} left` : '';
    const line = [
      `${bar} ${windows}/${numWindows} windows`,
      `${this.measure} ${value.toPrecision(5)}`,
      `${tokensPerSecond.toFixed(0)} tokens/s${left}`,
    ].join(', ');
    this.#stream.write(`\r\x1b[K${line.slice(0, (this.#stream.columns || 80) - 1)}`);
  }

  clear(): void {
    if (this.#stream.isTTY && this.#shown > 0) this.#stream.write('\r\x1b[K');
  }
}

/** 3725 → "1 h 02 min" */
function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  const two = (value: number) => String(value).padStart(2, '0');
  return minutes < 60
    ? `${minutes} min ${two(whole % 60)} s`
    : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

/** "12.34 ± 0.05", digits as the value needs them. */
export function withError(value: number, error: number | null, digits = 5): string {
  return error === null ? value.toPrecision(digits) : `${value.toPrecision(digits)} ± ${error.toPrecision(2)}`;
}

/** 0.9876 → "98.76 %" */
export function percent(part: number): string {
  return `${(100 * part).toFixed(2)} %`;
}
