import { basename } from 'node:path';
import { Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { checkRuns } from '../benchmark/repetition.js';
import type { LoadPoint } from '../benchmark/serve/serve.js';
import type { ServeRow } from '../benchmark/serve/serve-row.js';
import { readTrace, type TraceRequest } from '../benchmark/serve/trace.js';
import { syntheticWorkload, traceWorkload } from '../benchmark/serve/workload.js';
import { choice, number } from './flags.js';

/** Flags that say what a server is asked. Alike in name to those of `vllm bench serve` where there is one. */
export interface ServeLoadFlags {
  readonly concurrency?: readonly number[];
  readonly requestRate?: number;
  readonly trace?: string;
  readonly traceSpeed?: number;
  readonly lengthScale?: number;
  readonly promptTokens?: number;
  readonly outputTokens?: number;
  readonly sharedPrefixTokens?: number;
  readonly prefix?: 'cold' | 'warm' | 'both';
  readonly numRequests?: number;
  readonly duration?: number;
  readonly warmup?: number;
  readonly rounds?: number;
  readonly seed?: number;
  readonly vocabSize?: number;
  readonly contextSize?: number;
  readonly stream: boolean;
  readonly sloTtftMs?: number;
  readonly sloItlMs?: number;
}

const DEFAULT_CONCURRENCY = [1, 8, 16];
const DEFAULT_PROMPT_TOKENS = 128;
const DEFAULT_OUTPUT_TOKENS = 64;
const MAX_CONCURRENCY = 4096;
/** Of a prompt or an answer. */
const MAX_TOKENS = 1_000_000;
const MAX_REQUESTS = 1_000_000;
/** A day, in seconds. */
const MAX_DURATION = 86_400;

export function loadFlagsOfServe(): Option[] {
  return [
    new Option(
      '--concurrency <list>',
      `requests in flight, e.g. 1,8,16: a row each; default ${DEFAULT_CONCURRENCY}, and no limit where requests have times of arrival`,
    ).argParser(parseConcurrency),
    number('--request-rate <n>', 'arrivals a second, of a Poisson process; default: the next request when one is done'),
    new Option('--trace <path>', "a recorded workload: Azure's LLM traces (CSV) or Mooncake's (JSON lines)"),
    number('--trace-speed <x>', 'times of the trace are divided by it; default 1'),
    number('--length-scale <x>', 'lengths of the trace are multiplied by it; default 1'),
    number('--prompt-tokens <n>', `of each prompt; default ${DEFAULT_PROMPT_TOKENS}`),
    number('--output-tokens <n>', `of each answer, exactly; default ${DEFAULT_OUTPUT_TOKENS}`),
    number('--shared-prefix-tokens <n>', "in front of each prompt's own tokens; default 0"),
    choice(
      '--prefix <which>',
      'cold: each prompt has a prefix of its own; warm: all have the same, which the warm-up has sent; default both',
      ['cold', 'warm', 'both'],
    ),
    number(
      '--num-requests <n>',
      'of each row and round; default: 4 times the concurrency, at least 16; all of a trace',
    ),
    number('--duration <s>', 'seconds in which requests start, instead of a number of them'),
    number('--warmup <n>', 'requests before the measured ones; default: the concurrency, or 4'),
    number('--seed <n>', 'of prompts and arrivals; default 0, random with --url'),
    number('--vocab-size <n>', 'token ids below this are used; default: what the model or the server says, or 512'),
    number('--context-size <tokens>', 'of prompt and answer together; default: what the load needs'),
    new Option('--no-stream', 'ask for answers in one piece; only end-to-end times are measured'),
    number('--slo-ttft-ms <ms>', 'objective of goodput: the first token within this time'),
    number('--slo-itl-ms <ms>', 'objective of goodput: 99 % of the gaps between tokens of an answer'),
  ];
}

/** What is asked, before it is known of whom. */
export interface LoadShape {
  readonly flags: ServeLoadFlags;
  readonly concurrencies: readonly (number | null)[];
  readonly trace: readonly TraceRequest[] | null;
  /** Tokens of prompt and answer together, at most. Throws OPTION_INVALID if the model has no room for the load. */
  contextSize(modelContext: number): number;
}

/** Throws OPTION_INVALID, and what reading a trace throws. */
export function loadShapeOf(flags: ServeLoadFlags): LoadShape {
  const limits: readonly (readonly [keyof ServeLoadFlags, number, number, 'whole' | 'any'])[] = [
    ['requestRate', 1e-3, 1e5, 'any'],
    ['traceSpeed', 1e-3, 1e6, 'any'],
    ['lengthScale', 1e-6, 100, 'any'],
    ['promptTokens', 1, MAX_TOKENS, 'whole'],
    ['outputTokens', 1, MAX_TOKENS, 'whole'],
    ['sharedPrefixTokens', 0, MAX_TOKENS, 'whole'],
    ['numRequests', 1, MAX_REQUESTS, 'whole'],
    ['duration', 0.1, MAX_DURATION, 'any'],
    ['warmup', 0, MAX_REQUESTS, 'whole'],
    ['seed', 0, 2 ** 32 - 1, 'whole'],
    ['vocabSize', 2, 2 ** 24, 'whole'],
    ['contextSize', 2, 2 * MAX_TOKENS, 'whole'],
    ['sloTtftMs', 0, 1e9, 'any'],
    ['sloItlMs', 0, 1e9, 'any'],
  ];
  for (const [name, least, most, kind] of limits) checkLimit(name, flags[name], least, most, kind);
  if (flags.rounds !== undefined) checkRuns('--rounds', flags.rounds);
  exclude(flags, 'trace', ['requestRate', 'promptTokens', 'outputTokens', 'sharedPrefixTokens', 'prefix']);
  exclude(flags, 'duration', ['numRequests']);
  if (flags.trace === undefined) requireWith(flags, 'trace', ['traceSpeed', 'lengthScale']);
  if (!flags.sharedPrefixTokens) requireWith(flags, 'sharedPrefixTokens', ['prefix']);
  const trace = flags.trace === undefined ? null : readTrace(flags.trace);
  const isClosed = flags.requestRate === undefined && trace === null;
  return {
    flags,
    trace,
    concurrencies: flags.concurrency ?? (isClosed ? DEFAULT_CONCURRENCY : [null]),
    contextSize: (modelContext) => contextSizeOf(flags, trace !== null, modelContext),
  };
}

/** Positions that servers may keep free after an answer. */
const SPARE_POSITIONS = 16;
const TRACE_CONTEXT = 4096;

function contextSizeOf(flags: ServeLoadFlags, isTrace: boolean, modelContext: number): number {
  const { contextSize, promptTokens = DEFAULT_PROMPT_TOKENS, outputTokens = DEFAULT_OUTPUT_TOKENS } = flags;
  const needed = promptTokens + outputTokens + (flags.sharedPrefixTokens ?? 0);
  const limit = contextSize ?? modelContext;
  if (contextSize !== undefined && contextSize > modelContext) {
    const expected = `at most ${modelContext}, as the model allows`;
    throw new EngineError('OPTION_INVALID', { option: '--context-size', value: contextSize, expected });
  }
  if (isTrace) return contextSize ?? Math.min(modelContext, TRACE_CONTEXT);
  if (needed > limit) {
    const expected = `with prompt and answer (${needed} tokens) at most ${limit}, as the context allows`;
    throw new EngineError('OPTION_INVALID', { option: '--prompt-tokens', value: promptTokens, expected });
  }
  return contextSize ?? Math.min(modelContext, needed + SPARE_POSITIONS);
}

export interface LoadTarget {
  readonly vocabSize: number;
  readonly contextSize: number;
  readonly seed: number;
  readonly labels: Partial<ServeRow>;
}

/** What is measured, in order: each concurrency, cold before warm. */
export function loadPoints({ flags, concurrencies, trace }: LoadShape, target: LoadTarget): LoadPoint[] {
  return concurrencies.flatMap((concurrency) =>
    trace === null ? syntheticPoints(flags, concurrency, target) : [tracePoint(flags, trace, concurrency, target)],
  );
}

/** In flight at once in a warm-up, where the load has no limit. */
const DEFAULT_WARMUP = 4;

function syntheticPoints(flags: ServeLoadFlags, concurrency: number | null, target: LoadTarget): LoadPoint[] {
  const { requestRate = null, sharedPrefixTokens = 0, prefix = 'both', duration } = flags;
  const { promptTokens = DEFAULT_PROMPT_TOKENS, outputTokens = DEFAULT_OUTPUT_TOKENS } = flags;
  const { vocabSize, seed, labels } = target;
  const count = flags.numRequests ?? (duration === undefined ? Math.max(16, 4 * (concurrency ?? 1)) : null);
  const make = (isPrefixShared: boolean, cold: LoadPoint | null): LoadPoint => {
    const variant = sharedPrefixTokens === 0 ? undefined : isPrefixShared ? 'warm' : 'cold';
    const sizes = { promptTokens, outputTokens, prefixTokens: sharedPrefixTokens, isPrefixShared };
    return {
      ...common(flags, concurrency),
      name: pointName(requestRate === null ? 'closed' : `${requestRate}/s`, concurrency, variant),
      labels: {
        ...labels,
        arrivals: requestRate === null ? 'closed' : 'poisson',
        batch: concurrency ?? 0,
        stream: flags.stream,
        ...(requestRate !== null && { request_rate: requestRate }),
        ...(variant !== undefined && { shared_prefix_tokens: sharedPrefixTokens, prefix: variant }),
      },
      workload: (run) => syntheticWorkload(sizes, { count, requestRate }, { vocabSize, seed, run }),
      cold,
    };
  };
  if (sharedPrefixTokens === 0 || prefix === 'cold') return [make(false, null)];
  if (prefix === 'warm') return [make(true, null)];
  const cold = make(false, null);
  return [cold, make(true, cold)];
}

function tracePoint(
  flags: ServeLoadFlags,
  trace: readonly TraceRequest[],
  concurrency: number | null,
  { vocabSize, contextSize, seed, labels }: LoadTarget,
): LoadPoint {
  const { lengthScale = 1, traceSpeed: speed = 1 } = flags;
  const options = { count: flags.numRequests ?? null, lengthScale, speed, contextSize };
  const workload = (run: number) => traceWorkload(trace, options, { vocabSize, seed, run });
  const file = basename(flags.trace!);
  return {
    ...common(flags, concurrency),
    name: pointName(file, concurrency, undefined),
    labels: {
      ...labels,
      arrivals: 'trace',
      trace: file,
      batch: concurrency ?? 0,
      stream: flags.stream,
      cut_requests: workload(0).numCut,
    },
    workload,
    cold: null,
  };
}

function common(
  { duration, warmup }: ServeLoadFlags,
  concurrency: number | null,
): Pick<LoadPoint, 'concurrency' | 'durationMs' | 'numWarmup'> {
  const durationMs = duration === undefined ? null : 1000 * duration;
  return { concurrency, durationMs, numWarmup: warmup ?? concurrency ?? DEFAULT_WARMUP };
}

function pointName(arrivals: string, concurrency: number | null, variant: string | undefined): string {
  return [arrivals, concurrency === null ? [] : `× ${concurrency}`, variant ?? []].flat().join(' ');
}

function parseConcurrency(value: string): number[] {
  const list = value.split(',').map(Number);
  const isValid = (one: number) => Number.isInteger(one) && one >= 1 && one <= MAX_CONCURRENCY;
  if (list.length <= 16 && list.every(isValid)) return list;
  const expected = `at most 16 whole numbers from 1 to ${MAX_CONCURRENCY}, separated by commas`;
  throw new EngineError('OPTION_INVALID', { option: '--concurrency', value, expected });
}

function checkLimit(name: string, value: unknown, least: number, most: number, kind: 'whole' | 'any'): void {
  if (value === undefined) return;
  const number = value as number;
  if (number >= least && number <= most && (kind === 'any' || Number.isInteger(number))) return;
  const expected = `a ${kind === 'whole' ? 'whole ' : ''}number from ${least} to ${most}`;
  throw new EngineError('OPTION_INVALID', { option: flagOf(name), value, expected });
}

function exclude(flags: ServeLoadFlags, given: keyof ServeLoadFlags, others: readonly (keyof ServeLoadFlags)[]): void {
  const other = others.find((name) => flags[given] !== undefined && flags[name] !== undefined);
  if (other === undefined) return;
  throw new EngineError('OPTION_INVALID', {
    option: flagOf(other),
    value: flags[other],
    expected: `no ${flagOf(given)} with it`,
  });
}

function requireWith(
  flags: ServeLoadFlags,
  needed: keyof ServeLoadFlags,
  names: readonly (keyof ServeLoadFlags)[],
): void {
  const given = names.find((name) => flags[name] !== undefined);
  if (given === undefined) return;
  const expected = `${flagOf(needed)} with it`;
  throw new EngineError('OPTION_INVALID', { option: flagOf(given), value: flags[given], expected });
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
