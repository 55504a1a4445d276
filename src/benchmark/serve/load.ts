import { setTimeout as sleep } from 'node:timers/promises';
import { isGone } from './client.js';
import type { PlannedRequest, RequestRecord } from './request-record.js';

export interface Load {
  readonly send: (request: PlannedRequest, startMs: number) => Promise<RequestRecord>;
  readonly request: (index: number) => PlannedRequest;
  /** Null: until the time is over. */
  readonly count: number | null;
  /** No request starts later; null: as long as it takes. */
  readonly durationMs: number | null;
  /** Requests in flight at most; null: as many as arrive. */
  readonly concurrency: number | null;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((finished: number, elapsedMs: number) => void) | undefined;
}

export interface LoadResult {
  readonly records: readonly RequestRecord[];
  /** From the first request to the end of the last one. */
  readonly durationMs: number;
  /** Of this process: time on processors, and part of the time that its event loop was busy. */
  readonly clientCpuMs: number;
  readonly clientBusy: number;
  /** Why it ended early: the server is gone. */
  readonly gone: string | null;
}

/**
 * Sends requests as they arrive, or as soon as there is room: the next one when one is done. A request that has a time
 * of arrival counts from then, also when it had to wait for room here: otherwise a slow server would be asked less and
 * look better (coordinated omission). Throws what `send` throws, once no request is in flight.
 */
export async function runLoad(load: Load): Promise<LoadResult> {
  const { send, request, count, durationMs, concurrency, signal, onProgress } = load;
  const records: RequestRecord[] = [];
  const room = concurrency ?? Number.POSITIVE_INFINITY;
  let inFlight = 0;
  let onDone: () => void = () => undefined;
  const cpu = process.cpuUsage();
  const idle = performance.eventLoopUtilization();
  const start = performance.now();
  const elapsed = () => performance.now() - start;
  const isOver = (ms: number) => durationMs !== null && ms >= durationMs;
  let gone: string | null = null;
  let failure: unknown = null;
  const until = async (condition: () => boolean) => {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        onDone = resolve;
      });
    }
  };
  for (let index = 0; index < (count ?? Number.POSITIVE_INFINITY) && gone === null && failure === null; index++) {
    const planned = request(index);
    if (isOver(planned.atMs ?? elapsed())) break;
    if (planned.atMs !== null && planned.atMs > elapsed()) {
      await sleep(planned.atMs - elapsed(), undefined, { signal }).catch(() => undefined);
    }
    await until(() => inFlight < room);
    if (isOver(elapsed()) || signal?.aborted) break;
    inFlight++;
    void send(planned, start + (planned.atMs ?? elapsed()))
      .then((record) => {
        records.push(record);
        if (record.error !== null && isGone(record.error)) gone = record.error;
        onProgress?.(records.length, elapsed());
      })
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => {
        inFlight--;
        onDone();
      });
  }
  await until(() => inFlight === 0);
  if (failure !== null) throw failure;
  const used = process.cpuUsage(cpu);
  return {
    records,
    durationMs: elapsed(),
    clientCpuMs: (used.user + used.system) / 1000,
    clientBusy: performance.eventLoopUtilization(idle).utilization,
    gone,
  };
}
