import { EngineError, invariant } from '../base/errors.js';
import type { Engine } from '../library/engine.js';
import type { CompletionRequest } from '../serving/completer.js';

/** What is measured, of each sequence. */
export interface Workload {
  /** Sequences at once. */
  readonly batch: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
}

/** Tokens of prompts that share the steps of others' first tokens; LoadOptions' batches are no larger. */
const STEP_TOKENS = 512;

/** Tokens that may have come together with the first one, when the event loop was late. */
const SPARE_TOKENS = 4;

/**
 * Tokens that a sequence may generate before all others have their first one: while long prompts are computed, those
 * that were ready first go on.
 */
function headStart({ batch, promptTokens }: Workload): number {
  return SPARE_TOKENS + (batch === 1 ? 0 : Math.ceil((batch * promptTokens) / STEP_TOKENS));
}

/** Tokens of prompt and answer that each sequence of the workload can need. Without generated tokens it is a prefill. */
export function contextNeeded(workload: Workload): number {
  const { promptTokens, generatedTokens } = workload;
  return promptTokens + 1 + (generatedTokens === 0 ? 0 : generatedTokens + headStart(workload));
}

/** Prompt tokens per second over all sequences: from the call to the last sequence's first token. */
export async function measurePrefill(engine: Engine, workload: Workload): Promise<number> {
  const start = performance.now();
  const answers = requests(engine, workload, 1).map((request) => engine.complete(request));
  await Promise.all(answers);
  return perSecond(workload.batch * workload.promptTokens, performance.now() - start);
}

/**
 * Generated tokens per second over all sequences while all of them generate: from the moment when the last one has its
 * first token, to that when each has `generatedTokens` more. What any of them generated before does not count.
 */
export async function measureDecode(engine: Engine, workload: Workload): Promise<number> {
  const { batch, generatedTokens } = workload;
  const stop = new AbortController();
  const counts = new Array<number>(batch).fill(0);
  const wanted = new Array<number>(batch).fill(Number.POSITIVE_INFINITY);
  let waiting = batch; // sequences without a first token; then those that have not generated enough
  let start = 0;
  let countedBefore = 0;
  let rate = 0;
  const length = 1 + generatedTokens + headStart(workload);
  const total = () => counts.reduce((sum, count) => sum + count, 0);
  const onTokens = (sequence: number, tokens: number) => {
    const before = counts[sequence]!;
    counts[sequence] = before + tokens;
    if (start === 0 && before === 0) {
      waiting--;
      if (waiting > 0) return;
      start = performance.now();
      countedBefore = total();
      counts.forEach((count, i) => {
        wanted[i] = Math.min(count + generatedTokens, length);
      });
      waiting = batch;
    } else if (before < wanted[sequence]! && counts[sequence]! >= wanted[sequence]!) {
      waiting--;
      if (waiting > 0) return;
      rate = perSecond(total() - countedBefore, performance.now() - start);
      stop.abort();
    }
  };
  const answers = requests(engine, workload, length).map(async (request, sequence) => {
    for await (const { tokenIds } of engine.generate({ ...request, signal: stop.signal })) {
      if (tokenIds.length > 0) onTokens(sequence, tokenIds.length);
    }
  });
  await Promise.all(answers);
  invariant(rate > 0, 'sequences ended before all of them had generated enough');
  return rate;
}

/** Token ids, the same in every program that measures: spread over the vocabulary, none of the first few. */
export function promptOf(tokens: number, vocabSize: number, sequence = 0): Int32Array {
  const first = Math.min(300, vocabSize - 1); // behind special tokens and bytes
  return Int32Array.from({ length: tokens }, (_, i) => first + (((i + 31 * sequence) * 7919) % (vocabSize - first)));
}

/** Greedy tokens after a prompt. */
export async function greedyTokens(engine: Engine, promptIds: Int32Array, maxTokens: number): Promise<number[]> {
  const { tokenIds } = await engine.complete({ tokenIds: promptIds, maxTokens, temperature: 0, ignoreEos: true });
  return [...tokenIds];
}

function requests(engine: Engine, { batch, promptTokens }: Workload, maxTokens: number): CompletionRequest[] {
  return Array.from({ length: batch }, (_, sequence) => ({
    tokenIds: promptOf(promptTokens, engine.model.vocabSize, sequence),
    maxTokens,
    temperature: 0,
    ignoreEos: true,
  }));
}

function perSecond(tokens: number, ms: number): number {
  if (ms > 0) return (tokens * 1000) / ms;
  throw new EngineError('INTERNAL', { problem: `${tokens} tokens took no time` });
}
