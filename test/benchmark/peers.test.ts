import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Contender, SpeedRun } from '../../src/benchmark/contender.js';
import { llamaBench } from '../../src/benchmark/llama-bench.js';
import { nodeLlamaCpp } from '../../src/benchmark/node-llama-cpp.js';
import { comparePeers, type PeersOptions } from '../../src/benchmark/peers.js';
import { writeSyntheticModel } from '../../src/synthetic/model.js';
import { expectEngineError } from '../formats/engine-error.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-peers-'));
const model = join(folder, '15m.gguf');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(() => writeSyntheticModel(model, { shape: '15m', type: 'q4_0' }));

const prefill = { kind: 'prefill', batch: 1, promptTokens: 9, generatedTokens: 0 } as const;
const decode = { kind: 'decode', batch: 4, promptTokens: 1, generatedTokens: 5 } as const;

/** Rates of one round after the other, and a log of who ran when. */
function contender(name: string, log: string[], tokens: number[] | null, rates: (number | null)[]): Contender {
  return {
    name,
    kvDtype: 'f16',
    greedy: async () => tokens,
    measure: async ({ kind }) => {
      log.push(`${name} ${kind}`);
      const rate = rates.shift()!;
      return rate === null ? null : [rate - 1, rate, rate + 1];
    },
  };
}

describe('peers', () => {
  const compare = (ours: Contender, opponents: Contender[], more: Partial<PeersOptions> = {}) =>
    comparePeers({
      model,
      vocabSize: 32_000,
      promptIds: Int32Array.of(1, 2),
      threads: 1,
      ours,
      opponents,
      workloads: [prefill],
      rounds: 2,
      runs: 3,
      ...more,
    });

  test('run in turn, and ratios are those of rounds', async () => {
    const log: string[] = [];
    const ours = contender('ours', log, [1, 2, 3], [100, 30]);
    const { rows, agreement } = await compare(ours, [contender('theirs', log, [1, 2, 9], [50, 10])]);
    expect(log).toEqual(['ours prefill', 'theirs prefill', 'ours prefill', 'theirs prefill']);
    expect(rows[0]).toMatchObject({ backend: 'ours', tokens_per_second: { median: 65, min: 30, max: 100, runs: 2 } });
    expect(rows[0]).not.toHaveProperty('ratio');
    expect(rows[1]).toMatchObject({
      backend: 'theirs',
      ratio: { median: 2.5, min: 2, max: 3, runs: 2 },
      equal_leading_tokens: 2,
      compared_tokens: 3,
    });
    expect(agreement.get('theirs')).toEqual({ leading: 2, compared: 3 });
  });

  test('nothing is timed if already the first token differs', async () => {
    const log: string[] = [];
    const run = () => compare(contender('ours', log, [1, 2], []), [contender('theirs', log, [2, 2], [])]);
    await expectEngineError(run, 'TOKENS_DIFFER', 'ours and theirs', '1 2', '2 2');
    expect(log).toEqual([]);
  });

  test('who cannot measure something has no row for it', async () => {
    const ours = contender('ours', [], [1], [10, 10]);
    const { rows, agreement } = await compare(ours, [contender('theirs', [], null, [null, null])], {
      workloads: [decode],
    });
    expect(rows.map(({ backend }) => backend)).toEqual(['ours']);
    expect(agreement.size).toBe(0);
  });
});

/** A program that prints what it was given as one line of JSON, with more fields. */
function fakeProgram(name: string, fields: string, before = ''): string {
  const path = join(folder, name);
  const report = `process.stdout.write('log\\n' + JSON.stringify({ args: process.argv.slice(2), ${fields} }) + '\\n')`;
  writeFileSync(path, `#!${process.execPath}\n${before}\n${report}\n`);
  chmodSync(path, 0o755);
  return path;
}

const run = (task: typeof prefill | typeof decode): SpeedRun => {
  const { kind, ...workload } = task;
  return { model, vocabSize: 32_000, threads: 2, kind, workload, runs: 3 };
};

describe('llama-bench', () => {
  test('is given what is measured, and its samples are the rates', async () => {
    const fields = 'samples_ts: process.argv.includes("512") ? [] : [1, 2, process.argv.length]';
    const bench = llamaBench(fakeProgram('llama-bench', fields));
    // -m, -ngl, -t, -p, -n, -r and -o with their values, after node and the script.
    expect(await bench.measure(run(prefill))).toEqual([1, 2, 16]);
    expect(await bench.measure(run(decode))).toBeNull(); // there is no llama-batched-bench beside it
    fakeProgram('llama-batched-bench', 'speed_tg: Number(process.argv[process.argv.indexOf("-t") + 1])');
    expect(await llamaBench(join(folder, 'llama-bench')).measure(run(decode))).toEqual([2]);
    expect(await bench.greedy({ ...run(prefill), promptIds: Int32Array.of(1), generatedTokens: 1 })).toBeNull();
  });

  test('that is missing, fails or reports nothing is named with the reason', async () => {
    await expectEngineError(() => llamaBench(join(folder, 'nowhere')), 'FILE_NOT_FOUND', 'nowhere');
    const failing = llamaBench(fakeProgram('failing', '', 'console.error("no such flag"); process.exit(3)'));
    await expectEngineError(() => failing.measure(run(prefill)), 'OPPONENT_FAILED', 'failing', 'no such flag');
    const silent = llamaBench(fakeProgram('silent', ''));
    await expectEngineError(() => silent.measure(run(prefill)), 'OPPONENT_FAILED', 'samples_ts');
  });
});

test('the script of node-llama-cpp is given token ids, and its last line is the report', async () => {
  const script = "const t = JSON.parse(process.argv[2]); console.log('loading'); const n = t.prompts.flat().length;";
  const report =
    "console.log(JSON.stringify(t.kind === 'greedy' ? { tokenIds: [n, t.generatedTokens] } : { rates: [n, t.runs] }))";
  writeFileSync(join(folder, 'node-llama-cpp.mjs'), `${script}\n${report}\n`);
  const peer = nodeLlamaCpp(folder);
  expect(await peer.measure(run(decode))).toEqual([4, 3]);
  expect(await peer.greedy({ ...run(prefill), promptIds: Int32Array.of(5, 6), generatedTokens: 7 })).toEqual([2, 7]);
});
