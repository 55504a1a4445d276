import { expect, test } from 'vitest';
import { MergeRules } from '../../src/tokenizer/merge-rules.js';
import { PairTable } from '../../src/tokenizer/pair-table.js';
import { seededRandom } from '../tensor/random.js';

interface Rule {
  readonly left: number;
  readonly right: number;
  readonly rank: number;
  readonly result: number;
}

/** The definition, step by step: join the leftmost pair of the lowest rank until none is left. */
function mergeSlowly(rules: readonly Rule[], symbols: readonly number[]): number[] {
  const word = [...symbols];
  for (;;) {
    let best: { index: number; rule: Rule } | null = null;
    for (let index = 0; index + 1 < word.length; index++) {
      const rule = rules.find(({ left, right }) => left === word[index] && right === word[index + 1]);
      if (rule !== undefined && (best === null || rule.rank < best.rule.rank)) best = { index, rule };
    }
    if (best === null) return word;
    word.splice(best.index, 2, best.rule.result);
  }
}

test('the queue merges as the definition does, with and without ties', () => {
  const random = seededRandom(11);
  const below = (limit: number) => Math.floor(random() * limit);
  for (let round = 0; round < 400; round++) {
    const ties = round % 2 === 0;
    const rules: Rule[] = [];
    const table = new MergeRules(4);
    for (let result = 4; result < 20; result++) {
      const rule = { left: below(result), right: below(result), rank: ties ? below(4) : rules.length, result };
      if (rules.some(({ left, right }) => left === rule.left && right === rule.right)) continue;
      rules.push(rule);
      table.add(rule.left, rule.right, rule.rank, rule.result);
    }
    const word = Array.from({ length: below(30) }, () => below(4));
    const symbols = Int32Array.from([...word, 99, 99]);
    const count = table.apply(symbols, word.length);
    expect([...symbols.subarray(0, count)]).toEqual(mergeSlowly(rules, word));
  }
});

test('symbols without rules are kept, and a word longer than the work space is merged too', () => {
  const rules = new MergeRules(1);
  rules.add(1, 1, 0, 2);
  const symbols = new Int32Array(5001).fill(1);
  symbols[2500] = -1;
  const count = rules.apply(symbols, symbols.length);
  expect(count).toBe(2501);
  expect(symbols[1250]).toBe(-1);
});

test('a pair table keeps the first value of each pair while it grows', () => {
  const table = new PairTable(0);
  const random = seededRandom(5);
  const expected = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const left = Math.floor(random() * 300);
    const right = Math.floor(random() * 300);
    table.add(left, right, i);
    if (!expected.has(`${left},${right}`)) expected.set(`${left},${right}`, i);
  }
  expect(table.size).toBe(expected.size);
  for (const [key, value] of expected) {
    const [left, right] = key.split(',').map(Number);
    expect(table.get(left!, right!)).toBe(value);
  }
  expect(table.get(300, 0)).toBe(-1);
});
