import { randomUUID } from 'node:crypto';
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { TObject } from 'typebox';
import type { Activity } from './activity.js';
import { type ApiKey, Authenticator } from './auth.js';
import { BodyValidator } from './body-validator.js';
import { chatRoute } from './chat.js';
import { completionRoute } from './completion.js';
import { CorsPolicy } from './cors.js';
import { embeddingRoute } from './embedding.js';
import { refuseConnection, refuseUnknownRoutes, sendError } from './faults.js';
import { checkHost } from './host-check.js';
import { acceptJsonOnly } from './json-body.js';
import type { ServerLimits } from './limits.js';
import { modelRoutes } from './models.js';
import { Service, type ServiceOptions } from './service.js';
import { closeIfUnread } from './sse.js';
import { tokenRoutes } from './tokens.js';

declare module 'fastify' {
  interface FastifyInstance {
    /** The requests in progress; how a server stops. */
    readonly activity: Activity;
  }
  interface FastifyRequest {
    /** Name of the API key that was used; undefined where none is needed. */
    tenant: string | undefined;
  }
  interface FastifyContextConfig {
    /** False: answers whoever asks, without a key. */
    needsKey?: boolean;
    /** False: answers while the model loads and while the server shuts down too. */
    needsModel?: boolean;
  }
}

export interface ServerOptions extends ServiceOptions {
  /** Until it resolves every route answers 503; a rejection makes /health tell why. */
  readonly model: ServiceOptions['model'];
  /** Name of the model in answers and in /v1/models. */
  readonly modelName: string;
  /** Other names that requests may use. */
  readonly aliases?: readonly string[];
  /** None: no key is needed, and requests over loopback must name it in their Host header. */
  readonly apiKeys?: readonly ApiKey[];
  /** Origins of web pages that may use the server. Default: none. */
  readonly corsOrigins?: readonly string[];
  readonly limits?: Partial<ServerLimits>;
  /** The text of GET /metrics. Default: there is no such route. */
  readonly metrics?: () => Promise<{ readonly contentType: string; readonly text: string }>;
  readonly log?: FastifyBaseLogger;
  /** Adds the page at /. */
  readonly playground?: (app: FastifyInstance) => void;
}

/** How often Node.js looks for connections that are too slow to send a request. Milliseconds. */
const SLOW_CHECK_MS = 1000;

/**
 * The OpenAI-compatible server on a model. Throws OPTION_INVALID. `listen` and `close` are Fastify's; to stop in order,
 * call `activity.drain()`, wait for `activity.idle()`, then close.
 */
export function createServer(options: ServerOptions): FastifyInstance {
  const service = new Service(options);
  const { limits, modelName } = service;
  const auth = new Authenticator(options.apiKeys);
  const cors = new CorsPolicy(options.corsOrigins, auth.needsKey);

  const app: FastifyInstance = Fastify({
    ...(options.log === undefined ? { logger: false } : { loggerInstance: options.log }),
    // Each request has a line of its own at its end (request-log.ts), with the same label for its id.
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestTimeoutMs,
    return503OnClosing: false,
    genReqId: requestId,
    routerOptions: { maxParamLength: 512 },
    http: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      connectionsCheckingInterval: Math.min(SLOW_CHECK_MS, limits.headersTimeoutMs),
    },
    clientErrorHandler: (error, socket) => refuseConnection(error, socket, limits),
    frameworkErrors: (error, request, reply) => sendError(error, request, reply, modelName),
  });
  app.server.maxConnections = limits.connections;
  app.decorate('activity', service.activity);
  app.decorateRequest('tenant', undefined);
  acceptJsonOnly(app, limits.jsonDepth);
  app.setValidatorCompiler(({ schema }) => {
    const validator = new BodyValidator(schema as TObject);
    return (body: unknown) => validator.check(body);
  });
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply, modelName));

  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id);
    if (cors.apply(request, reply)) {
      reply.code(204).send();
      return;
    }
    const { needsKey = true, needsModel = true } = request.routeOptions.config;
    if (needsKey) {
      if (!auth.needsKey) checkHost(request.socket.localAddress, request.headers.host);
      request.tenant = auth.tenantOf(request.headers.authorization);
    }
    if (!needsModel || service.model) done();
  });
  app.addHook('onSend', (_request, reply, payload, done) => {
    closeIfUnread(reply.raw, limits.readerTimeoutMs);
    done(null, payload);
  });

  refuseUnknownRoutes(app);
  chatRoute(app, service);
  completionRoute(app, service);
  embeddingRoute(app, service);
  tokenRoutes(app, service);
  modelRoutes(app, service);
  app.get('/health', { config: { needsKey: false, needsModel: false } }, async () => {
    service.checkHealth();
    return { status: 'ok' };
  });
  const { metrics } = options;
  if (metrics !== undefined) {
    const config = { needsModel: false };
    app.get('/metrics', { config }, async (_request, reply) => sendMetrics(reply, await metrics()));
  }
  options.playground?.(app);
  return app;
}

function sendMetrics(reply: FastifyReply, { contentType, text }: { contentType: string; text: string }): FastifyReply {
  return reply.header('content-type', contentType).send(text);
}

/** A client's own id, if it is one that can stand in a log, or a new one. */
function requestId({ headers }: { headers: FastifyRequest['headers'] }): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,64}$/.test(given) ? given : `req-${randomUUID()}`;
}
