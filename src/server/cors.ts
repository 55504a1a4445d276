import type { FastifyReply, FastifyRequest } from 'fastify';
import { EngineError } from '../base/errors.js';

/** Which pages of other origins may use the server from a browser. */
export class CorsPolicy {
  readonly #origins: ReadonlySet<string>;

  /** Throws OPTION_INVALID for `*` where there are API keys: any page could then use one that a browser remembers. */
  constructor(origins: readonly string[] = [], hasKeys: boolean) {
    this.#origins = new Set(origins);
    if (hasKeys && this.#origins.has('*')) {
      throw new EngineError('OPTION_INVALID', {
        option: 'corsOrigins',
        value: '*',
        expected: 'origins by name, such as https://example.com, where there are API keys',
      });
    }
  }

  /** Sets the headers; true for a preflight request, which is answered with them alone. */
  apply(request: FastifyRequest, reply: FastifyReply): boolean {
    if (this.#origins.size === 0) return false;
    reply.header('vary', 'Origin');
    const { origin } = request.headers;
    if (origin === undefined || !(this.#origins.has(origin) || this.#origins.has('*'))) return false;
    reply.header('access-control-allow-origin', origin);
    reply.header('access-control-expose-headers', 'x-request-id, retry-after');
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return false;
    reply.header('access-control-allow-methods', 'GET, POST');
    // The official client sends a dozen x-stainless-* headers, so what is asked for is allowed.
    const headers = request.headers['access-control-request-headers'] ?? 'authorization, content-type';
    reply.header('access-control-allow-headers', headers);
    reply.header('access-control-max-age', '600');
    return true;
  }
}
