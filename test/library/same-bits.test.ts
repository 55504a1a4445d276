import { describe, expect, it } from 'vitest';
import { Engine } from '../../src/library/engine.js';
import type { LoadOptions } from '../../src/library/load-options.js';
import type { Completion, CompletionRequest } from '../../src/serving/completer.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { writeTinyChatModel } from '../cli/tiny-chat-model.js';

const tiny = writeTinyChatModel(`${temporaryFolder()}/tiny.gguf`, null);

/** What is compared: tokens and their log-probabilities, to the last bit. */
function bits({ tokenIds, logprobs }: Completion): string {
  const words = new Uint32Array(
    Float32Array.from(logprobs!.flatMap(({ logprob, top }) => [logprob, ...top.map((t) => t.logprob)])).buffer,
  );
  return `${tokenIds.join(' ')} | ${[...words].map((word) => word.toString(16)).join(' ')}`;
}

/** The same request in all the company it can have, on engines loaded with `options`. Every output, as bits. */
async function outputs(
  options: LoadOptions,
  request: CompletionRequest,
  numOthers: number,
): Promise<[string, string][]> {
  const all: [string, string][] = [];
  const record = (how: string, completion: Completion): void => {
    all.push([how, bits(completion)]);
  };
  const tokenIds = request.tokenIds as number[];
  const contextSize = 128;
  const other = (i: number): CompletionRequest => ({
    tokenIds: Array.from({ length: 1 + ((i * 7) % 40) }, (_, t) => (i * 31 + t * 17) % 200),
    maxTokens: 12 + (i % 20),
    seed: i,
    ignoreEos: true,
  });

  {
    await using engine = await Engine.load({ ...options, contextSize, prefixCache: false });
    record('alone', await engine.complete(request));
  }
  {
    const numAtOnce = numOthers + 8;
    await using engine = await Engine.load({ ...options, contextSize, batchSize: numAtOnce });
    const first = engine.complete(request);
    const others = Array.from({ length: numOthers }, (_, i) => engine.complete(other(i)));
    record(`beside ${numOthers} others, whose prompts come after it`, await first);
    const steps = engine.stats().steps;
    const busy = Array.from({ length: numOthers }, (_, i) => engine.complete(other(i + 100)));
    while (engine.stats().steps < steps + 4) await new Promise((resolve) => setImmediate(resolve));
    const hit = await engine.complete(request);
    expect(hit.usage.cachedTokens).toBe(tokenIds.length - (tokenIds.length % 16));
    record('with a prefix hit, beside others', hit);
    const longer = { ...request, tokenIds: [...tokenIds.slice(0, 20), 7, 7, 7] };
    await engine.complete(longer);
    record('with the blocks of another prompt beside it', await engine.complete(request));
    await Promise.all([...others, ...busy]);

    const talking = Array.from({ length: 4 }, (_, i) => engine.complete({ ...other(i), maxTokens: 80 }));
    const chunkedBefore = engine.stats();
    record('in pieces of prompt beside decoding', await engine.complete({ ...request, cacheSalt: 'new' }));
    expect(engine.stats().steps).toBeGreaterThan(chunkedBefore.steps);
    const four = await engine.completeAll({ ...request, cacheSalt: 'four', n: 4 });
    record('the first of four answers', four[0]!);
    await Promise.all(talking);
    expect(engine.stats().preemptions).toBe(0);
  }
  {
    await using engine = await Engine.load({ ...options, contextSize, batchSize: 1, maxSequences: 8 });
    const urgent = Array.from({ length: 4 }, (_, i) => engine.complete({ ...other(i), maxTokens: 60 }));
    const late = engine.complete(request);
    const four = engine.completeAll({ ...request, n: 4, cacheSalt: 'four' });
    record('in a cache so small that it is preempted', await late);
    record('the first of four, preempted', (await four)[0]!);
    await Promise.all(urgent);
    expect(engine.stats().preemptions).toBeGreaterThan(0);
  }
  return all;
}

function expectOne(all: readonly (readonly [string, string])[]): void {
  const unique = new Set(all.map(([, output]) => output));
  const differing = all.filter(([, output]) => output !== all[0]![1]).map(([how]) => how);
  expect(`unique outputs: ${unique.size}`, `${all.length} outputs, differing: ${differing.join(', ')}`).toBe(
    'unique outputs: 1',
  );
}

/** Longer than one step's share of prompt beside those who generate. */
const promptIds = Array.from({ length: 90 }, (_, i) => (i * 37) % 211);
const temperatures = [{ temperature: 0 }, { temperature: 1, seed: 77 }];

describe.skipIf(notBuilt)(`native-cpu${notBuilt ?? ''}`, () => {
  it.each(temperatures)(
    'gives one output at temperature $temperature at any thread count, alone, batched, cached, in pieces or preempted',
    async (sampling) => {
      const request = { ...sampling, tokenIds: promptIds, maxTokens: 24, ignoreEos: true, logprobs: 3 };
      const all = [];
      for (const threads of [1, 2, 3]) all.push(...(await outputs({ backend: 'native-cpu', threads }, request, 64)));
      expectOne(all);
    },
    120_000,
  );

  it.each(['f16', 'f32', 'int8'] as const)(
    'gives one output with keys and values in %s',
    async (kvDtype) => {
      const request = { temperature: 1, seed: 5, tokenIds: promptIds, maxTokens: 24, ignoreEos: true, logprobs: 3 };
      expectOne(await outputs({ backend: 'native-cpu', model: tiny, kvDtype }, request, 64));
    },
    60_000,
  );

  it.each(['f16', 'f32', 'int8'] as const)(
    'gives the same logits alone and beside others, keys and values in %s',
    async (kvDtype) => {
      const all: [string, string][] = [];
      const digest = (logits: Float32Array) => Buffer.from(logits.buffer).toString('base64');
      for (const threads of [1, 2, 3]) {
        await using engine = await Engine.load({ backend: 'native-cpu', model: tiny, kvDtype, threads, batchSize: 16 });
        all.push([`alone, ${threads} threads`, digest(await engine.logits(promptIds))]);
        const others = Array.from({ length: 16 }, (_, i) =>
          engine.complete({ tokenIds: [i, 1], maxTokens: 30, ignoreEos: true, seed: i }),
        );
        all.push([`in pieces beside others, ${threads} threads`, digest(await engine.logits(promptIds))]);
        await Promise.all(others);
        const steps = engine.stats().steps;
        const piecewise = Array.from({ length: 3 }, (_, i) => engine.logits(promptIds.slice(0, 40 + i * 20)));
        const whole = digest(await engine.logits(promptIds));
        all.push([`among other logits, ${threads} threads`, whole]);
        await Promise.all(piecewise);
        expect(engine.stats().steps).toBeGreaterThan(steps);
      }
      expectOne(all);
    },
  );
});

describe('reference', () => {
  it.each(temperatures)(
    'gives one output at temperature $temperature, alone, batched, cached, in pieces or preempted',
    async (sampling) => {
      const request = { ...sampling, tokenIds: promptIds, maxTokens: 24, ignoreEos: true, logprobs: 3 };
      expectOne(await outputs({ backend: 'reference', model: tiny }, request, 20));
    },
    60_000,
  );
});
