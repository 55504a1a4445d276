import { type Chunk, readChunk } from './answer.js';
import { eventData } from './stream.js';

const KEY_NAME = 'engine.key';

/** An answer of the server that is not 2xx. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string | null,
    message: string,
  ) {
    super(message);
  }
}

export type Route = 'v1/chat/completions' | 'v1/completions';

/** The server that the page came from. Paths are relative, so that it may stand behind a proxy's prefix. */
export class Api {
  /** Kept for this tab only. */
  get key(): string | null {
    try {
      return sessionStorage.getItem(KEY_NAME);
    } catch {
      return null;
    }
  }

  set key(key: string) {
    sessionStorage.setItem(KEY_NAME, key);
  }

  /** Why nothing can be asked yet; null once the model is loaded. */
  async problem(): Promise<Error | null> {
    try {
      await this.#request('health');
      return null;
    } catch (error) {
      return error instanceof ApiError ? error : new Error('the server does not answer');
    }
  }

  /** Name of the first model. */
  async model(): Promise<string> {
    const { data } = (await (await this.#request('v1/models')).json()) as { data: { id: string }[] };
    return data[0]?.id ?? '';
  }

  /** The server's metrics in Prometheus' text format. */
  async metrics(): Promise<string> {
    return (await this.#request('metrics')).text();
  }

  /** A streamed answer. Throws ApiError, and what fetch throws. */
  async *stream(route: Route, body: object, signal: AbortSignal): AsyncGenerator<Chunk, void> {
    const response = await this.#request(route, { method: 'POST', body: JSON.stringify(body), signal });
    if (response.body === null) return;
    for await (const data of eventData(response.body)) {
      if (data === '[DONE]') return;
      yield readChunk(data);
    }
  }

  async #request(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.method === 'POST' ? { 'content-type': 'application/json' } : {});
    const { key } = this;
    if (key !== null) headers.set('authorization', `Bearer ${key}`);
    const response = await fetch(path, { ...init, headers, cache: 'no-store' });
    if (response.ok) return response;
    const { error } = (await response.json().catch(() => ({}))) as { error?: { message?: string; code?: string } };
    const message = error?.message ?? `the server answered ${response.status} ${response.statusText}`;
    throw new ApiError(response.status, error?.code ?? null, message);
  }
}
