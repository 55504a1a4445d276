import { describe, expect, it } from 'vitest';
import { BlockPool } from '../../src/engine/block-pool.js';
import type { EngineLoop } from '../../src/engine/engine-loop.js';
import { PrefixCache } from '../../src/engine/prefix-cache.js';
import type { TokenRequest } from '../../src/engine/sequence.js';
import { expectedTokens, fakeLoop } from './fake-session.js';
import { ids, prompt, request } from './requests.js';

const large = { maxTokens: 512, maxRows: 64, maxSequences: 32, numBlocks: 256, contextSize: 1024 };

/** Prompt tokens that a request found in the cache. */
async function cached(loop: EngineLoop, promptIds: number[], more: Partial<TokenRequest> = {}): Promise<number> {
  const stream = loop.submit(request(promptIds, 1, more));
  expect(await ids(stream)).toEqual(expectedTokens(promptIds, 1));
  loop.checkIntegrity();
  return stream.cachedTokens;
}

describe('prefix cache', () => {
  it('forgets the beginning of a very long prompt, and with it all the rest', () => {
    const numBlocks = 50_000;
    const pool = new BlockPool(numBlocks);
    const cache = new PrefixCache(pool, 16, true);
    const blocks = pool.allocate(numBlocks)!;
    cache.enter('', blocks.map(String), blocks);
    pool.release(blocks.toReversed()); // the first is given back first, as with a sliding window
    expect(pool.allocate(1)).toEqual([blocks[0]]);
    cache.checkIntegrity(new Set());
    expect(pool.numIdle).toBe(0);
  });

  it('finds whole blocks of what begins alike, and leaves the last token to be computed', async () => {
    const { loop } = fakeLoop(large);
    expect(await cached(loop, prompt(18))).toBe(0);
    expect(await cached(loop, prompt(18))).toBe(16);
    expect(await cached(loop, prompt(16))).toBe(12);
    expect(await cached(loop, [...prompt(9), 500])).toBe(8);
    expect(await cached(loop, [500, ...prompt(17)])).toBe(0);
    expect(loop.stats().prefixCache).toMatchObject({ queriedTokens: 18 + 18 + 16 + 10 + 18, hitTokens: 16 + 12 + 8 });
  });

  it('finds answers too, so that a conversation goes on where it was', async () => {
    const { loop } = fakeLoop(large);
    const answer = await ids(loop.submit(request(prompt(6), 11)));
    expect(await cached(loop, [...prompt(6), ...answer, 1, 2])).toBe(16);
  });

  it.each([8, 512])('computes a prompt once for sixteen who come together, at %i tokens a step', async (maxTokens) => {
    const { loop } = fakeLoop({ ...large, maxTokens });
    const streams = Array.from({ length: 16 }, () => loop.submit(request(prompt(41), 1)));
    for (const answer of await Promise.all(streams.map(ids))) expect(answer).toEqual(expectedTokens(prompt(41), 1));
    expect(loop.stats().computedTokens).toBe(41 + 15 * 1);
    expect(streams.map(({ cachedTokens }) => cachedTokens).sort()).toEqual([0, ...Array(15).fill(40)].sort());
  });

  it('lets others go first while a prompt is awaited', async () => {
    const { loop, session } = fakeLoop({ ...large, maxTokens: 8 }, {});
    const ends: string[] = [];
    session.beforeResult = () => new Promise((resolve) => setImmediate(resolve));
    const submit = (name: string, promptIds: number[]) =>
      ids(loop.submit(request(promptIds, 1))).then(() => ends.push(name));
    await Promise.all([submit('first', prompt(45)), submit('same', prompt(45)), submit('other', prompt(4, 600))]);
    // In the step that ends the first one's prompt three tokens are left over, and the same prompt is not computed yet.
    expect(ends).toEqual(['first', 'other', 'same']);
    expect(session.batches.map(({ tokenIds }) => tokenIds.length)).toEqual([8, 8, 8, 8, 8, 8, 2]);
  });

  it('goes on with an announced prompt when whoever announced it is cancelled', async () => {
    const { loop, session } = fakeLoop({ ...large, maxTokens: 8 });
    const abort = new AbortController();
    session.beforeResult = () => {
      if (session.batches.length === 3) abort.abort();
    };
    const first = loop.submit(request(prompt(41), 1, { signal: abort.signal }));
    const second = loop.submit(request(prompt(41), 1));
    expect(await ids(first)).toEqual([]);
    expect(await ids(second)).toEqual(expectedTokens(prompt(41), 1));
    expect(second.cachedTokens).toBe(16); // of the third step nothing is kept
    expect(loop.stats().computedTokens).toBe(24 + 25);
    loop.checkIntegrity();
  });

  it('is shared within a tenant and salt, and nowhere else', async () => {
    const { loop } = fakeLoop(large);
    const own = { tenant: 'a', cacheSalt: 'x' };
    await cached(loop, prompt(17), own);
    for (const other of [{}, { tenant: 'a' }, { tenant: 'b', cacheSalt: 'x' }, { tenant: 'a', cacheSalt: 'y' }]) {
      expect(await cached(loop, prompt(17), other)).toBe(0);
    }
    expect(await cached(loop, prompt(17), { tenant: 'a","x', cacheSalt: '' })).toBe(0);
    expect(await cached(loop, prompt(17), own)).toBe(16);
  });

  it('forgets the longest unused first, and of it the end before the beginning', async () => {
    const { loop } = fakeLoop({ ...large, numBlocks: 12 });
    const [shared, old] = [prompt(8), prompt(17, 300)];
    await cached(loop, old); // 4 blocks are kept
    for (let i = 0; i < 20; i++) {
      // Each keeps a block of its own besides the two they share.
      expect(await cached(loop, [...shared, ...prompt(5, 400 + 10 * i)])).toBe(i === 0 ? 0 : 8);
    }
    expect(await cached(loop, old)).toBe(0);
    expect(loop.stats().prefixCache.evictedBlocks).toBeGreaterThan(10);

    const { loop: another } = fakeLoop({ ...large, numBlocks: 8 });
    await cached(another, prompt(25)); // 6 blocks are kept, 2 are free
    await cached(another, prompt(17, 300)); // needs 5
    expect(await cached(another, prompt(25))).toBe(12);
  });

  it('does not keep what follows an evicted block', async () => {
    const { loop } = fakeLoop({ ...large, numBlocks: 4, contextSize: 64 }, { window: 4 });
    const promptIds = prompt(3);
    const streamed = ids(loop.submit(request(promptIds, 14)));
    expect(await streamed).toEqual(expectedTokens(promptIds, 14));
    loop.checkIntegrity();
    // Four blocks are all there are: to hold two answers at once, those that left the window have to be used again.
    await Promise.all([1, 2].map((i) => ids(loop.submit(request(prompt(3, 100 * i), 14)))));
    loop.checkIntegrity();
    expect(loop.stats().prefixCache.evictedBlocks).toBeGreaterThan(0);
    expect(loop.stats().blocks.used).toBe(0);
  });

  it('finds and keeps nothing when it is off', async () => {
    const { loop } = fakeLoop(large, { prefixCache: false });
    await cached(loop, prompt(17));
    expect(await cached(loop, prompt(17))).toBe(0);
    expect(loop.stats().blocks.cached).toBe(0);
  });

  it('remembers no more scopes than have blocks, after thousands of them', async () => {
    const { loop } = fakeLoop({ ...large, numBlocks: 8 });
    for (let i = 0; i < 3000; i++) {
      const promptIds = prompt(4 + (i % 3), i % 900);
      await ids(loop.submit(request(promptIds, 1, { cacheSalt: `salt ${i}`, tenant: `tenant ${i % 1500}` })));
    }
    loop.checkIntegrity(); // which looks for empty scopes
    expect(loop.stats().blocks).toMatchObject({ used: 0, total: 8 });
  });
});
