import pino, { type Logger } from 'pino';
import { EngineError } from '../base/errors.js';
import type { CompletionRequest } from '../serving/completer.js';
import type { ServedModel } from '../serving/served-model.js';
import { LogWriter } from './log-writer.js';
import type { RequestEnd, RequestObserver, RequestStart } from './observer.js';
import { requestTotals } from './request-totals.js';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface ServerLog {
  readonly log: Logger;
  readonly writer: Pick<LogWriter, 'written' | 'finish'>;
}

const STDERR = 2;

/** Lines on stderr: JSON, or for people if it is a terminal. Writing never holds up the event loop. */
export function openLog(level: LogLevel, isTerminal = process.stderr.isTTY === true): ServerLog {
  const writer = new LogWriter(STDERR);
  const stream = isTerminal ? { write: (line: string) => writer.write(readable(line)) } : writer;
  return { log: pino({ level, base: null }, stream), writer };
}

/** One line of JSON as people like to read it. */
export function readable(line: string): string {
  const { level, time, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const label = pino.levels.labels[Number(level)] ?? 'info';
  const clock = new Date(Number(time)).toTimeString().slice(0, 8);
  const fields = Object.entries(rest).map(([name, value]) =>
    typeof value === 'string' && /^[\w.:/-]+$/.test(value) ? `${name}=${value}` : `${name}=${JSON.stringify(value)}`,
  );
  const stack = (err as { stack?: string } | undefined)?.stack;
  return `${[clock, label.toUpperCase().padEnd(5), msg, ...fields].join(' ')}\n${stack === undefined ? '' : `${stack}\n`}`;
}

/** One line per request, at its end. Never a prompt or an answer, nor a message that may quote them. */
export class RequestLog implements RequestObserver {
  constructor(private readonly log: Logger) {}

  begin(start: RequestStart) {
    const begun = performance.now();
    return {
      tokens: () => undefined,
      end: (end: RequestEnd) => this.#write(start, end, performance.now() - begun),
    };
  }

  #write(start: RequestStart, end: RequestEnd, totalMs: number): void {
    const { requestId, operation, model, stream } = start;
    const { status, promptTokens, outcomes, error } = end;
    const first = outcomes[0];
    const { completionTokens, cachedTokens } = requestTotals(start, end);
    const fields = {
      request_id: requestId,
      operation,
      model,
      stream,
      status,
      prompt_tokens: promptTokens,
      ...(first !== undefined && {
        completion_tokens: completionTokens,
        cached_tokens: cachedTokens,
        queue_ms: rounded(first.timings.queueMs),
        ttft_ms: rounded(first.timings.ttftMs),
      }),
      total_ms: rounded(totalMs),
      ...(first !== undefined && {
        tokens_per_second: rounded((completionTokens * 1000) / totalMs),
        finish_reasons: outcomes.map(({ finishReason }) => finishReason),
      }),
      ...(error !== undefined && { error: error instanceof EngineError ? error.code : 'INTERNAL' }),
    };
    if (status < 500) this.log.info(fields, 'request');
    else if (error instanceof EngineError && error.blame !== 'engine')
      this.log.warn(fields, 'request'); // such as a full queue
    else this.log.error({ ...fields, err: error }, 'request');
  }
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

/** A model that logs every prompt it gets. */
export function withPromptLog(model: ServedModel, log: Logger): ServedModel {
  return {
    contextSize: model.contextSize,
    readPrompt: (request, signal) => model.readPrompt(request, signal),
    applyTemplate: (request) => model.applyTemplate(request),
    readText: (text, options, signal) => model.readText(text, options, signal),
    decode: (tokenIds) => model.decode(tokenIds),
    stats: () => model.stats(),
    generate: (request: CompletionRequest) => {
      const { prompt, messages, tools, tokenIds, tenant } = request;
      log.info({ tenant, prompt, messages, tools, token_ids: tokenIds && Array.from(tokenIds) }, 'prompt');
      return model.generate(request);
    },
    embed: (request) => {
      log.info({ tenant: request.tenant, inputs: request.inputs }, 'prompt');
      return model.embed(request);
    },
  };
}
