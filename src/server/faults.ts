import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { EngineError } from '../base/errors.js';
import { apiError } from './api-error.js';
import type { ServerLimits } from './limits.js';

/** Answers with an error, whatever was thrown, in OpenAI's shape. */
export function sendError(thrown: unknown, request: FastifyRequest, reply: FastifyReply, modelName: string): void {
  const { status, retryAfter, body } = apiError(fromFastify(thrown, request), modelName);
  if (status === 500) request.log.error({ err: thrown }, 'a request failed');
  else request.log.debug({ status, code: body.error.code, param: body.error.param }, 'a request was refused');
  if (retryAfter !== null) reply.header('retry-after', String(retryAfter));
  if (status === 401) {
    // A browser asks its user for the key; for the page at / and for all that it fetches from here.
    const wantsPage = request.headers.accept?.includes('text/html') ?? false;
    reply.header('www-authenticate', `${wantsPage ? 'Basic' : 'Bearer'} realm="engine-ts"`);
  }
  reply.code(status).send(body);
}

/** Fastify's own errors as ours. */
function fromFastify(thrown: unknown, { headers, routeOptions }: FastifyRequest): unknown {
  if (!(thrown instanceof Error) || thrown instanceof EngineError) return thrown;
  const { code, statusCode, message: problem } = thrown as Error & { code?: string; statusCode?: number };
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new EngineError('BODY_TOO_LARGE', { limit: routeOptions.bodyLimit! });
  if (statusCode === 415) return new EngineError('MEDIA_TYPE_UNSUPPORTED', { type: headers['content-type'] });
  const isClients = statusCode !== undefined && statusCode >= 400 && statusCode < 500;
  return isClients ? new EngineError('HTTP_INVALID', { problem }) : thrown;
}

/** Paths that no route matches: 405 where another method would have, else 404. Call before routes are added. */
export function refuseUnknownRoutes(app: FastifyInstance): void {
  const methods = new Map<string, Set<string>>(); // by the path of a route; /prefix/* stands for all below it
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set();
    for (const name of [method].flat()) known.add(name);
    methods.set(url, known);
  });
  app.setNotFoundHandler(({ method, url }, reply) => {
    const path = url.split('?', 1)[0]!;
    const matches = (route: string) => (route.endsWith('/*') ? path.startsWith(route.slice(0, -1)) : path === route);
    const allowed = [...methods].filter(([route]) => matches(route)).flatMap(([, names]) => [...names]);
    if (allowed.length === 0) throw new EngineError('ROUTE_UNKNOWN', { method, path });
    reply.header('allow', allowed.join(', '));
    throw new EngineError('METHOD_UNKNOWN', { method, path, allowed: allowed.join(' or ') });
  });
}

/** What Node.js refuses before there is a request: written to the bare connection, which ends with it. */
export function refuseConnection(error: Error & { code?: string }, socket: Socket, limits: ServerLimits): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const { status, body } = apiError(connectionFault(error, limits), '');
  const text = JSON.stringify(body);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  );
}

function connectionFault({ code, message }: Error & { code?: string }, limits: ServerLimits): EngineError {
  if (code === 'HPE_HEADER_OVERFLOW') return new EngineError('HEADERS_TOO_LARGE', { limit: limits.headerBytes });
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new EngineError('CLIENT_TOO_SLOW', { seconds: limits.requestTimeoutMs / 1000, what: 'send its request' });
  }
  return new EngineError('HTTP_INVALID', { problem: message });
}
