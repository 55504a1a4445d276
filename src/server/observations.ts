import type { FastifyBaseLogger } from 'fastify';
import type { RequestObservation, RequestObserver, RequestStart } from './observer.js';

/** Tells all observers about a request. One that throws is a fault of ours and no reason to fail the request. */
export function observe(
  observers: readonly RequestObserver[],
  start: RequestStart,
  log: FastifyBaseLogger,
): RequestObservation {
  const safely = <T>(tell: () => T): T | null => {
    try {
      return tell();
    } catch (error) {
      log.error({ err: error, requestId: start.requestId }, 'an observer of requests failed');
      return null;
    }
  };
  const begun = observers.map((observer) => safely(() => observer.begin(start)));
  const observations = begun.filter((observation) => observation !== null);
  return {
    tokens(index, count) {
      for (const observation of observations) safely(() => observation.tokens(index, count));
    },
    end(end) {
      for (const observation of observations) safely(() => observation.end(end));
    },
  };
}
