import http from 'node:http';
import https from 'node:https';
import { EngineError } from '../../base/errors.js';
import type { PlannedRequest, RequestRecord } from './request-record.js';
import { EventSplitter } from './sse.js';

export interface ClientOptions {
  /** Root of the server, without `/v1`. */
  readonly url: string;
  /** As the server names it; empty before it was asked. */
  readonly model: string;
  readonly stream: boolean;
  /** Sent as a bearer token. */
  readonly apiKey?: string | undefined;
}

/** Without a byte for so long, a request has failed. */
const IDLE_MS = 300_000;
/** Of an answer without streaming, and of a page of metrics. */
const MAX_BODY = 1 << 26;

/** Messages of errors that mean that nobody listens at the address any more. */
const gone = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH']);

/** Whether no further request can succeed. */
export function isGone(error: string): boolean {
  return gone.has(error);
}

/**
 * Asks an OpenAI-compatible server for completions of token ids, with exactly as many tokens as asked for. On
 * node:http itself, with connections that stay open: a client library would take more of the machine it measures on.
 */
export class CompletionClient {
  readonly #request: typeof http.request;
  readonly #agent: http.Agent;
  readonly #root: string;

  constructor(readonly options: ClientOptions) {
    const isSecure = options.url.startsWith('https:');
    const { Agent, request } = isSecure ? https : http;
    this.#request = request;
    this.#agent = new Agent({ keepAlive: true, maxFreeSockets: 4096 });
    this.#root = options.url.replace(/\/+$/, '');
  }

  /** Never throws but ABORTED: what went wrong is in the record. */
  complete(planned: PlannedRequest, startMs: number, signal?: AbortSignal): Promise<RequestRecord> {
    const { model, stream } = this.options;
    const body = JSON.stringify({
      model,
      prompt: planned.promptIds,
      max_tokens: planned.outputTokens,
      temperature: 0,
      ignore_eos: true,
      stream,
      ...(stream && { stream_options: { include_usage: true } }),
    });
    const answer = new Answer(planned, startMs);
    return new Promise((resolve, reject) => {
      const end = (error: string | null) =>
        signal?.aborted ? reject(new EngineError('ABORTED', {})) : resolve(answer.record(error));
      this.#send('POST', '/v1/completions', body, signal, end, (response) => {
        if (response.statusCode !== 200) {
          return collect(response, (text) => end(refusal(response.statusCode!, text)), end);
        }
        if (!stream) return collect(response, (text) => end(answer.whole(text)), end);
        const splitter = new EventSplitter();
        response.setEncoding('utf8').on('data', (text: string) => {
          try {
            const now = performance.now();
            for (const event of splitter.push(text)) answer.event(event, now);
          } catch (error) {
            response.destroy(error as Error);
          }
        });
        response.on('end', () => end(null)).on('error', (error) => end(messageOf(error)));
      });
    });
  }

  /** Text of a page. Throws Error with a message of one line. */
  get(path: string, signal?: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (reason: string) => reject(signal?.aborted ? new EngineError('ABORTED', {}) : new Error(reason));
      this.#send('GET', path, '', signal, fail, (response) =>
        collect(
          response,
          (text) => (response.statusCode === 200 ? resolve(text) : fail(refusal(response.statusCode!, text))),
          fail,
        ),
      );
    });
  }

  close(): void {
    this.#agent.destroy();
  }

  #send(
    method: 'GET' | 'POST',
    path: string,
    body: string,
    signal: AbortSignal | undefined,
    fail: (reason: string) => void,
    onResponse: (response: http.IncomingMessage) => void,
    isRetry = false,
  ): void {
    const { apiKey } = this.options;
    const headers = {
      ...(method === 'POST' && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
    };
    let response: http.IncomingMessage | null = null;
    const agent = isRetry ? false : this.#agent; // false: a connection of its own
    const request = this.#request(`${this.#root}${path}`, { method, headers, agent, signal });
    request.setTimeout(IDLE_MS, () => request.destroy(new Error(`no byte in ${IDLE_MS / 1000} s`)));
    request.on('response', (arrived) => {
      response = arrived;
      onResponse(arrived);
    });
    request.on('error', (error: NodeJS.ErrnoException) => {
      // The server had closed an idle connection just before it was used again: this request never reached it.
      const wasClosed = request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      if (wasClosed && response === null) this.#send(method, path, body, signal, fail, onResponse, true);
      else fail(messageOf(error));
    });
    request.end(body);
  }
}

/** Fields of a completion, or of a piece of one, that count here. */
interface CompletionBody {
  readonly choices?: readonly { readonly text?: string; readonly finish_reason?: string | null }[];
  readonly usage?: { readonly prompt_tokens?: number; readonly completion_tokens?: number } | null;
  readonly error?: { readonly message?: string } | string;
}

/** An answer while it arrives. */
class Answer {
  #ttftMs: number | null = null;
  readonly #gapsMs: number[] = [];
  #lastMs = 0;
  #events = 0;
  #usage: CompletionBody['usage'] = null;
  #error: string | null = null;
  #isDone = false;

  constructor(
    readonly planned: PlannedRequest,
    readonly startMs: number,
  ) {}

  event(data: string, now: number): void {
    if (data === '[DONE]') {
      this.#isDone = true;
      return;
    }
    const body = this.#read(data);
    const choice = body?.choices?.[0];
    // The last one often says only why the answer ended.
    if (choice === undefined || (!choice.text && choice.finish_reason)) return;
    this.#events++;
    if (this.#ttftMs === null) this.#ttftMs = now - this.startMs;
    else this.#gapsMs.push(now - this.#lastMs);
    this.#lastMs = now;
  }

  /** An answer in one piece; gives its error. */
  whole(text: string): string | null {
    this.#isDone = true;
    return this.#read(text) === null ? this.#error : null;
  }

  record(error: string | null): RequestRecord {
    const sent = this.planned.promptIds.length;
    const promptTokens = this.#usage?.prompt_tokens ?? sent;
    const outputTokens = this.#usage?.completion_tokens ?? this.#events;
    return {
      startMs: this.startMs,
      ttftMs: this.#ttftMs,
      gapsMs: this.#gapsMs,
      e2eMs: performance.now() - this.startMs,
      promptTokens,
      outputTokens,
      error: error ?? this.#error ?? this.#fault(promptTokens, outputTokens),
    };
  }

  #fault(promptTokens: number, outputTokens: number): string | null {
    const { promptIds, outputTokens: wanted } = this.planned;
    if (!this.#isDone) return 'the answer ended without [DONE]';
    if (outputTokens !== wanted) return `${outputTokens} tokens instead of ${wanted}`;
    if (promptTokens < promptIds.length) return `a prompt of ${promptIds.length} tokens was cut to ${promptTokens}`;
    return null;
  }

  #read(text: string): CompletionBody | null {
    try {
      const body = Object(JSON.parse(text)) as CompletionBody;
      if (body.usage) this.#usage = body.usage;
      if (body.error !== undefined) this.#error = refusal(200, text);
      return body;
    } catch {
      this.#error = 'an event is not JSON';
      return null;
    }
  }
}

/** What an error's body says, in one line. */
function refusal(status: number, text: string): string {
  let message = text;
  try {
    const { error } = Object(JSON.parse(text)) as CompletionBody;
    message = (typeof error === 'string' ? error : error?.message) ?? text;
  } catch {
    // no JSON: the text itself
  }
  return `HTTP ${status}: ${message.replace(/\s+/g, ' ').slice(0, 120)}`;
}

function messageOf(error: NodeJS.ErrnoException): string {
  return error.code ?? error.message;
}

/** Gives the whole body. */
function collect(response: http.IncomingMessage, done: (text: string) => void, fail: (reason: string) => void): void {
  let text = '';
  response.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
    if (text.length > MAX_BODY) response.destroy(new Error(`an answer has more than ${MAX_BODY} characters`));
  });
  response.on('end', () => done(text)).on('error', (error) => fail(messageOf(error)));
}
