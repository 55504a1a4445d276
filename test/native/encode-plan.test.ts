import { describe, expect, it } from 'vitest';
import type { SessionLimits, WeightTable } from '../../src/backend/backend.js';
import { abiNumber, encodePlan } from '../../src/backend/encode-plan.js';
import { PlanBuilder } from '../../src/backend/plan.js';

const limits: SessionLimits = {
  maxTokens: 3,
  maxRows: 2,
  maxSequences: 1,
  contextSize: 8,
  blockSize: 4,
  numBlocks: 2,
  kvDtype: 'f16',
};
const stamp = { size: 2 ** 33, mtimeMs: 1.5 };

function tinyPlan() {
  const builder = new PlanBuilder();
  const table = builder.weight('embedding', 10, 16);
  const head = builder.weight('head', 10, 16);
  const rope = builder.ropeTable({ inverseFrequencies: [1, 0.5], magnitude: 2 });
  const x = builder.embed(table);
  builder.rope(x, 8, rope, true);
  return builder.finish(builder.linear(builder.selectRows(x), head, null, 'q8'));
}

const entry = { dtype: 'q8_0', rows: 10, columns: 16, transposedStride: 0 } as const;

function tableOf(file: string): WeightTable {
  return {
    entries: [
      { ...entry, file, offset: 64 },
      { ...entry, file, offset: 5 * 2 ** 32 + 0xfffffff0 },
    ],
    files: new Map([['a.gguf', stamp]]),
  };
}

const floatBits = (value: number): [number, number] => {
  const words = new Int32Array(Float64Array.of(value).buffer);
  return [words[0]!, words[1]!];
};

describe('a plan as words', () => {
  it('is header, limits, buffers, weights, RoPE tables, KV layers and ops', () => {
    const { words, names, files } = encodePlan(tinyPlan(), tableOf('a.gguf'), limits);
    expect([...words]).toEqual([
      ...[abiNumber, 3, 2, 1, 0, 4, 2, 16, 32],
      ...[3, 2, 1, 8, 4, 2, 1],
      ...[16, 0, 0, /**/ 16, 1, 0, /**/ 10, 1, 16],
      ...[0, 64, 0, 8, 10, 16, 0, 8],
      ...[0, -16, 5, 8, 10, 16, 0, 8],
      ...[2, ...floatBits(2), ...floatBits(1), ...floatBits(0.5)],
      ...[0, 0, 0], // embed: out, table
      ...[5, 0, 8, 0, 1], // rope: x, headDim, table, interleaved
      ...[11, 1, 0], // selectRows: out, x
      ...[4, 2, 1, 1, -1, 1], // linear: out, x, weight, bias, activations
    ]);
    const quantised = tableOf('a.gguf').entries.map((source) => ({ ...source, quantize: 'int4' as const }));
    const other = encodePlan(tinyPlan(), { ...tableOf('a.gguf'), entries: quantised }, limits);
    expect([...words].flatMap((word, i) => (word === other.words[i] ? [] : [other.words[i]]))).toEqual([10004, 10004]);
    expect(names).toEqual(['embedding', 'head']);
    expect(files).toEqual([{ path: 'a.gguf', ...stamp }]);
  });

  it('refuses a weight table that does not belong to it', () => {
    const plan = tinyPlan();
    const table = tableOf('a.gguf');
    expect(() => encodePlan(plan, tableOf('b.gguf'), limits)).toThrow(/embedding lies in b.gguf/);
    expect(() => encodePlan(plan, { ...table, entries: table.entries.slice(1) }, limits)).toThrow(/has 2 weights/);
    const reshaped = table.entries.map((source) => ({ ...source, rows: 9 }));
    expect(() => encodePlan(plan, { ...table, entries: reshaped }, limits)).toThrow(/is \[9, 16\] in the table/);
  });

  it('refuses numbers beyond 32 bits', () => {
    expect(() => encodePlan(tinyPlan(), tableOf('a.gguf'), { ...limits, contextSize: 2 ** 31 })).toThrow(
      /2147483648 does not fit/,
    );
  });
});
