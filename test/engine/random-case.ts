import type { EngineLoop } from '../../src/engine/engine-loop.js';
import { seededRandom } from '../tensor/random.js';
import { expectedTokens, fakeLoop, VOCAB } from './fake-session.js';
import { penalised, request, sampling } from './requests.js';

/** What came of a case. */
export interface CaseReport {
  readonly steps: number;
  readonly preemptions: number;
  readonly hitTokens: number;
  readonly copies: number;
  /** Calls of several steps. */
  readonly longCalls: number;
  /** Requests that got all their tokens or rows; that were cancelled; that were failed by a step. */
  readonly ended: Record<'whole' | 'cancelled' | 'failed', number>;
  /** The longest a request took, in steps per token of all requests. */
  readonly slowest: number;
}

const DEVICE_LOST = 'device lost';

/**
 * A random pool, random budgets, and random requests that arrive, are cancelled and fail at random calls of a session that
 * does up to `maxSteps` steps in one. Throws if anything is ever amiss: a step without tokens, a token that the request
 * would not get alone, a block that is lost.
 */
export async function runCase(seed: number, maxSteps: number): Promise<CaseReport> {
  const random = seededRandom(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const between = (least: number, most: number): number => least + below(most - least + 1);
  const oneIn = (n: number): boolean => below(n) === 0;

  const blockSize = between(1, 5);
  const maxSequences = between(1, 6);
  const numBlocks = between(3, oneIn(3) ? 40 : 10);
  const numSlots = numBlocks * blockSize;
  const { loop, session } = fakeLoop(
    { blockSize, numBlocks, maxSequences, maxTokens: between(1, 16), maxRows: maxSequences + below(4) },
    { window: oneIn(3) ? between(2, 12) : null, prefixCache: !oneIn(8), maxWaiting: 1000 },
    maxSteps,
  );
  const fails = oneIn(5);
  const texts = Array.from({ length: 3 }, () => Array.from({ length: numSlots }, () => below(3)));
  const promptOf = (): number[] => {
    const shared = texts[below(3)]!.slice(0, below(Math.min(30, numSlots)));
    return [...shared, ...Array.from({ length: between(1, 4) }, () => below(3))].slice(0, numSlots);
  };

  const ended = { whole: 0, cancelled: 0, failed: 0 };
  let steps = 0;
  let work = 0;
  let slowest = 0;
  const atStep = new Map<number, (() => void)[]>();
  const later = (step: number, act: () => void): void => {
    const acts = atStep.get(step) ?? [];
    acts.push(act);
    atStep.set(step, acts);
  };

  const makeRequest = (): (() => Promise<void>) => {
    const promptIds = promptOf();
    work += promptIds.length;
    const tenant = `tenant ${below(3)}`;
    const standing = { tenant, cacheSalt: oneIn(4) ? 'salt' : undefined, priority: oneIn(3) ? between(-2, 2) : 0 };
    const abort = new AbortController();
    if (oneIn(5)) {
      if (oneIn(5)) abort.abort();
      else later(below(30), () => abort.abort()); // before it is made, while it waits or runs, or after its end
    }
    const options = { ...standing, signal: abort.signal };
    const kind = below(8);
    if (kind < 2) return () => collectRows(loop, promptIds, kind === 0 ? 'mean' : 'last', options);
    if (kind === 2 && oneIn(4)) return () => collectLogits(loop, promptIds, options);

    const n = oneIn(3) ? between(1, maxSequences) : 1;
    const maxTokens = between(1, Math.min(40, numSlots - promptIds.length + 1));
    const expected = Array.from({ length: n }, (_, choice) => expectedTokens(promptIds, maxTokens, choice));
    const stopIds = new Set(oneIn(4) ? [expected[0]![below(maxTokens)]!] : []);
    const chosen = oneIn(10) ? penalised : sampling;
    const leaveAfter = oneIn(6) ? below(n * maxTokens) : Infinity;
    const dropAfter = oneIn(6) ? below(maxTokens) : Infinity; // answer 0 alone
    work += n * maxTokens;
    return async () => {
      const stream = loop.submit(request(promptIds, maxTokens, { ...options, sampling: chosen, n, stopIds }));
      const got = expected.map((): number[] => []);
      let numGot = 0;
      for await (const { choice, tokens } of stream.parts()) {
        got[choice]!.push(...tokens.map(({ id }) => id));
        numGot += tokens.length;
        if (numGot > leaveAfter) break;
        if (got[0]!.length > dropAfter) stream.cancel(0);
      }
      got.forEach((tokens, choice) => {
        const all = expected[choice]!;
        const stopAt = all.findIndex((id) => stopIds.has(id));
        const whole = stopAt < 0 ? all : all.slice(0, stopAt + 1);
        const reason = stream.finishReasonOf(choice);
        const isWhole = reason === 'length' || (reason === 'stop' && !(choice === 0 && dropAfter < Infinity));
        const wanted = isWhole && numGot <= leaveAfter ? whole : whole.slice(0, tokens.length);
        if (String(tokens) !== String(wanted)) throw new Error(`answer ${choice}: ${tokens} instead of ${wanted}`);
        if (reason === null && numGot <= leaveAfter) throw new Error(`answer ${choice} has no finish reason`);
      });
      if (stream.finishReason === 'abort' || numGot > leaveAfter) throw new Cancelled();
    };
  };

  const jobs: Promise<void>[] = [];
  const start = (run: () => Promise<void>): void => {
    const first = steps;
    const count = (how: keyof typeof ended): void => {
      ended[how]++;
      slowest = Math.max(slowest, (steps - first) / work);
    };
    jobs.push(
      run().then(
        () => count('whole'),
        (error: unknown) => {
          const { code, message } = error as { code?: string; message: string };
          if (error instanceof Cancelled || code === 'ABORTED') count('cancelled');
          else if (message === DEVICE_LOST) count('failed');
          else throw error;
        },
      ),
    );
  };

  session.beforeResult = async () => {
    loop.checkIntegrity();
    for (const act of atStep.get(steps) ?? []) act();
    loop.checkIntegrity();
    steps++;
    if (steps > 5000) throw new Error('no end in sight');
    if (fails && oneIn(50)) throw new Error(DEVICE_LOST);
    if (oneIn(5)) await Promise.resolve(); // readers are heard at different times
  };
  const waiting = Array.from({ length: between(1, 16) }, makeRequest);
  while (waiting.length > 0) {
    for (let i = between(1, 4); i > 0 && waiting.length > 0; i--) start(waiting.pop()!);
    // Others may come while these run; whoever does not is in the next round.
    const round = steps;
    for (let i = below(8); i > 0; i--) {
      later(round + below(20), () => {
        if (waiting.length > 0) start(waiting.pop()!);
      });
    }
    for (let settled = 0; settled < jobs.length; ) {
      settled = jobs.length;
      await Promise.all(jobs);
    }
  }
  loop.checkIntegrity();
  const { running, waiting: numWaiting, blocks, preemptions, prefixCache } = loop.stats();
  if (running + numWaiting + blocks.used > 0) throw new Error(`left over: ${JSON.stringify(loop.stats())}`);
  const longCalls = session.batches.filter(({ numSteps = 1 }) => numSteps > 1).length;
  const copies = session.copies.length;
  return { steps, preemptions, hitTokens: prefixCache.hitTokens, copies, longCalls, ended, slowest };
}

class Cancelled extends Error {}

type Options = Parameters<EngineLoop['logits']>[1];

/** The hidden states of the fake session are the token id and the position. */
async function collectRows(loop: EngineLoop, promptIds: number[], pooling: 'mean' | 'last', options: Options) {
  const pooled = await loop.pooled(Int32Array.from(promptIds), pooling, options);
  const last = promptIds.length - 1;
  const mean = promptIds.reduce((sum, id) => sum + id, 0) / promptIds.length;
  const wanted = Float32Array.from(pooling === 'last' ? [promptIds[last]!, last] : [mean, last / 2]);
  if (String(pooled) !== String(wanted)) throw new Error(`${pooling} is ${pooled} instead of ${wanted}`);
}

/** The logits of the fake session are the token id, everywhere. */
async function collectLogits(loop: EngineLoop, promptIds: number[], options: Options) {
  const logits = await loop.logits(Int32Array.from(promptIds), options);
  promptIds.forEach((id, i) => {
    if (logits[i * VOCAB] !== id || logits[(i + 1) * VOCAB - 1] !== id) throw new Error(`logits of token ${i}`);
  });
}
