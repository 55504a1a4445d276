import { poissonArrivals, Random, randomTokens } from './random.js';
import type { PlannedRequest } from './request-record.js';
import { TRACE_BLOCK, type TraceRequest } from './trace.js';

/** Requests by number, made when they are asked for: a run may go on for as long as it has time. */
export interface Workload {
  /** Null: there is always another one. */
  readonly count: number | null;
  request(index: number): PlannedRequest;
  /** Requests before the measured ones, with lengths like theirs and prompts of their own. */
  warmup(index: number): PlannedRequest;
}

/**
 * What separates prompts from each other. Every number of `run` gives other prompts, so that no round profits from one
 * before; two servers in the same round are given the same ones.
 */
export interface PromptSource {
  readonly vocabSize: number;
  readonly seed: number;
  readonly run: number;
}

export interface SyntheticSizes {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** In front of the prompt's own tokens. */
  readonly prefixTokens: number;
  /** Whether all prompts begin with the same tokens; else each has a beginning of its own. */
  readonly isPrefixShared: boolean;
}

/** First numbers of a stream of random numbers. */
const stream = { prompt: 0, prefix: 1, block: 2, warmup: 3, arrivals: 4 } as const;

/**
 * Prompts of equal length.
 *
 * @param requestRate arrivals a second, of a Poisson process; null: as soon as there is room
 */
export function syntheticWorkload(
  sizes: SyntheticSizes,
  { count, requestRate }: { readonly count: number | null; readonly requestRate: number | null },
  { vocabSize, seed, run }: PromptSource,
): Workload {
  const { promptTokens, outputTokens, prefixTokens, isPrefixShared } = sizes;
  const shared = isPrefixShared ? randomTokens(prefixTokens, vocabSize, new Random(seed, stream.prefix)) : [];
  const promptIds = (kind: number, index: number) => {
    const own = promptTokens + prefixTokens - shared.length;
    return [...shared, ...randomTokens(own, vocabSize, new Random(seed, kind, run, index))];
  };
  const arrivals = requestRate === null ? null : poissonArrivals(requestRate, new Random(seed, stream.arrivals, run));
  const times: number[] = [];
  const timeOf = (index: number) => {
    if (arrivals === null) return null;
    while (times.length <= index) times.push(arrivals.next().value);
    return times[index]!;
  };
  return {
    count,
    request: (index) => ({ promptIds: promptIds(stream.prompt, index), outputTokens, atMs: timeOf(index) }),
    warmup: (index) => ({ promptIds: promptIds(stream.warmup, index), outputTokens, atMs: null }),
  };
}

export interface TraceOptions {
  /** Requests from the beginning; null: all. */
  readonly count: number | null;
  /** Lengths are multiplied by it; answers have at least one token. */
  readonly lengthScale: number;
  /** Times are divided by it. */
  readonly speed: number;
  /** Most tokens of prompt and answer together: what is longer loses the end of its prompt, then of its answer. */
  readonly contextSize: number;
}

/** A recorded workload, with random tokens: prompts begin alike exactly as far as those of the trace do. */
export function traceWorkload(
  trace: readonly TraceRequest[],
  { count, lengthScale, speed, contextSize }: TraceOptions,
  { vocabSize, seed, run }: PromptSource,
): Workload & { readonly numCut: number } {
  const requests = trace.slice(0, count ?? trace.length);
  const scaled = (tokens: number) => Math.max(1, Math.round(tokens * lengthScale));
  const blockSize = scaled(TRACE_BLOCK);
  const isCut = ({ promptTokens, outputTokens }: TraceRequest) =>
    scaled(promptTokens) + scaled(outputTokens) > contextSize;
  const make = (request: TraceRequest, index: number, kind: number): PlannedRequest => {
    const outputTokens = Math.min(scaled(request.outputTokens), contextSize - 1);
    const promptTokens = Math.min(scaled(request.promptTokens), contextSize - outputTokens);
    const promptIds: number[] = [];
    const blocks = kind === stream.warmup ? [] : (request.blocks ?? []);
    for (const block of blocks) {
      const length = Math.min(blockSize, promptTokens - promptIds.length);
      if (length === 0) break;
      promptIds.push(...randomTokens(length, vocabSize, new Random(seed, stream.block, run, block)));
    }
    const rest = promptTokens - promptIds.length;
    promptIds.push(...randomTokens(rest, vocabSize, new Random(seed, kind, run, index)));
    return { promptIds, outputTokens, atMs: kind === stream.warmup ? null : request.atMs / speed };
  };
  return {
    count: requests.length,
    numCut: requests.filter(isCut).length,
    request: (index) => make(requests[index]!, index, stream.prompt),
    warmup: (index) => make(requests[index % requests.length]!, index, stream.warmup),
  };
}
