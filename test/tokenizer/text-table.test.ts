import { expect, test } from 'vitest';
import { TextTable } from '../../src/tokenizer/text-table.js';
import { seededRandom } from '../tensor/random.js';

test('a text table finds texts and parts of texts while it grows', () => {
  const random = seededRandom(7);
  const texts: string[] = [];
  const expected = new Map<string, number>();
  const table = new TextTable((id) => texts[id]!);
  for (let i = 0; i < 20_000; i++) {
    const text = String.fromCharCode(...Array.from({ length: Math.floor(random() * 5) }, () => 0x2581 + random() * 12));
    if (expected.has(text)) continue;
    expect(table.find(text)).toBe(-1);
    expected.set(text, texts.push(text) - 1);
    table.add(text, texts.length - 1);
  }
  expect(texts.length).toBeGreaterThan(5000);
  for (const [text, id] of expected) {
    expect(table.find(text)).toBe(id);
    expect(table.find(`xx${text}y`, 2, 2 + text.length)).toBe(id);
  }
  expect(table.find('nowhere')).toBe(-1);
});
