/** `engine-ts/server`: the OpenAI-compatible server as a Fastify instance, for programs that have an Engine. */
export type { ApiKey } from './auth.js';
export type { ServerLimits } from './limits.js';
export { Metrics } from './metrics.js';
export type { RequestEnd, RequestObservation, RequestObserver, RequestStart } from './observer.js';
export { playground } from './playground.js';
export { createServer, type ServerOptions } from './server.js';
export { openTelemetry } from './telemetry.js';
