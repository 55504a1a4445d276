import { readFileSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { itWithData } from '../shared-data.js';
import { plainCacheHits, replay, type TracedRequest } from './replay.js';

/** Tokens of the traces for one of ours: the shapes stay, the prompts become short enough to replay in a second. */
const SCALE = 32;

const scaled = (tokens: number): number => Math.max(1, Math.round(tokens / SCALE));

/**
 * timestamp, prompt tokens, generated tokens; nothing is known of the prompts, so none begins like another; answers are
 * cut less than prompts, so that they grow in a full cache.
 */
function azure(path: string, count: number): TracedRequest[] {
  const lines = readFileSync(path, 'utf8')
    .trim()
    .split(/\r?\n/)
    .slice(1, 1 + count);
  const start = Date.parse(lines[0]!.split(',')[0]!);
  return lines.map((line, i) => {
    const [time, context, generated] = line.split(',');
    const promptIds = Array.from({ length: scaled(Number(context)) }, (_, t) =>
      t === 0 ? i % 1000 : (i * 7 + t) % 1000,
    );
    return { arrivalMs: (Date.parse(time!) - start) / SCALE, promptIds, maxTokens: Math.ceil(Number(generated) / 4) };
  });
}

/** Prompts as ids of blocks of 512 tokens, each of which stands for itself and all before it; here a block is 16 tokens. */
function mooncake(path: string, count: number): TracedRequest[] {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(0, count);
  return lines.map((line) => {
    const { timestamp, input_length, output_length, hash_ids } = JSON.parse(line) as {
      timestamp: number;
      input_length: number;
      output_length: number;
      hash_ids: number[];
    };
    const all = hash_ids.flatMap((id) =>
      Array.from({ length: 16 }, (_, t) => (t < 2 ? Math.floor(id / 1000 ** t) % 1000 : t)),
    );
    const promptIds = all.slice(0, Math.max(scaled(input_length), all.length - 15));
    return { arrivalMs: timestamp, promptIds, maxTokens: scaled(output_length) };
  });
}

const generated = (requests: readonly TracedRequest[]): number =>
  requests.reduce((sum, { maxTokens }) => sum + maxTokens, 0);

describe('replay of recorded traffic', () => {
  for (const [name, numBlocks] of [
    ['conv', 130],
    ['code', 130],
  ] as const) {
    itWithData(
      `workload/azure/AzureLLMInferenceTrace_${name}.csv`,
      `gives all requests of Azure's ${name} service their tokens, many at once and with preemption`,
      async (path) => {
        const requests = azure(path, 1500);
        const { stats, mostRunning } = await replay(requests, numBlocks, 4);
        expect(stats.generatedTokens).toBe(generated(requests));
        expect(mostRunning).toBeGreaterThan(8);
        expect(stats.preemptions).toBeGreaterThan(0);
      },
    );
  }

  for (const name of ['conversation', 'synthetic']) {
    itWithData(
      `workload/mooncake/${name}_trace.jsonl`,
      `finds of Mooncake's ${name} prompts what a cache of that size can hold`,
      async (path) => {
        const requests = mooncake(path, 600);
        const endless = await replay(requests, 100_000);
        expect(endless.stats.generatedTokens).toBe(generated(requests));
        expect(endless.stats.prefixCache.hitTokens).toBe(plainCacheHits(requests, Infinity));

        for (const numBlocks of [1000, 4000]) {
          const { hitTokens } = (await replay(requests, numBlocks)).stats.prefixCache;
          const plain = plainCacheHits(requests, numBlocks);
          expect(hitTokens / plain).toBeGreaterThan(0.9);
          expect(hitTokens / plain).toBeLessThan(1.1);
        }
      },
      60_000,
    );
  }
});
