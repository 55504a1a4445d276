import { describe, expect, it } from 'vitest';
import { lowercase } from '../../src/tokenizer/bert.js';
import { anywhere, beforeStarters, inSequence, PART, partwise } from '../../src/tokenizer/partwise.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { finish, type Work, WorkQueue } from '../../src/tokenizer/work.js';
import { itWithData } from '../shared-data.js';
import { seededRandom } from '../tensor/random.js';
import { ggufTokenizer, jsonTokenizer, tokenizerJsonFiles, vocabularyFiles } from './vocabularies.js';

const LENGTH = 20_000; // UTF-16 units: some parts of 4,096
const FRAGMENTS =
  "the |don't|  |\n\n|\r\n|\t|12345|1.5|é|e\u0301|\u0301\u0323|ﬁ|Σ|天地|玄，|한글|ㄱ|\u1112\u1161\u11ab|😀|👩‍👩‍👧|👍🏽|🇩🇪|" +
  '<s>|</s>|[MASK]|\u00a0|\u3000|\ud800|\0|ก็|न्|\u2581|);|x_1';

function mixed(seed: number): string {
  const random = seededRandom(seed);
  const fragments = FRAGMENTS.split('|');
  let text = '';
  while (text.length < LENGTH) {
    const fragment = fragments[Math.floor(random() * fragments.length)]!;
    text += random() < 0.02 ? fragment.repeat(1 + Math.floor(random() * 3000)) : fragment;
  }
  return text;
}

const texts: Readonly<Record<string, string>> = {
  'one word': 'a'.repeat(LENGTH),
  spaces: ' '.repeat(LENGTH),
  emoji: '😀👍🏽'.repeat(LENGTH / 6),
  digits: '1234567890'.repeat(LENGTH / 10),
  chinese: '天地玄黄宇宙洪荒，'.repeat(LENGTH / 9),
  accents: 'e\u0301'.repeat(LENGTH / 2),
  ...Object.fromEntries([1, 2, 3].map((seed) => [`mixed ${seed}`, mixed(seed)])),
};

/** Ids of all texts at once, their pieces taking turns. */
async function inTurns(tokenizer: Tokenizer): Promise<Record<string, number[]>> {
  const queue = new WorkQueue();
  const entries = Object.entries(texts).map(async ([name, text]) => [
    name,
    [...(await queue.run(tokenizer.encodeWork(text, { parseSpecial: true })))],
  ]);
  return Object.fromEntries(await Promise.all(entries)) as Record<string, number[]>;
}

const all: readonly [string, string, (path: string) => Tokenizer][] = [
  ...Object.entries(vocabularyFiles).map(([name, file]) => [name, file, ggufTokenizer] as const),
  ...Object.entries(tokenizerJsonFiles).map(([name, file]) => [`${name} (json)`, file, jsonTokenizer] as const),
].map(([name, file, load]) => [name, file, load]);

describe('texts whose pieces take turns have the ids they have alone', () => {
  for (const [name, file, load] of all) {
    itWithData(file, name, async (path) => {
      const tokenizer = load(path);
      const found = await inTurns(tokenizer);
      for (const [text, ids] of Object.entries(found)) {
        expect(ids.length, text).toBeGreaterThan(0);
        expect(ids.join() === tokenizer.encode(texts[text]!, { parseSpecial: true }).join(), text).toBe(true);
      }
    });
  }

  itWithData(tokenizerJsonFiles.gpt2, 'and end early when there are enough', async (path) => {
    const tokenizer = jsonTokenizer(path);
    const text = 'one two '.repeat(LENGTH);
    const ids = await new WorkQueue().run(tokenizer.encodeWork(text, {}, 100));
    expect(ids.length).toBeGreaterThan(100);
    expect(ids.length).toBeLessThan(2000);
    expect([...ids]).toEqual([...tokenizer.encode(text).subarray(0, ids.length)]);
  });
});

describe('changes of text part by part', () => {
  const forms = ['NFC', 'NFD', 'NFKC', 'NFKD'] as const;
  it.each(forms)('%s: no character that a part begins with is joined to what is before it', (form) => {
    const before = ['a', 'e\u0301', '\u1112', '\u1112\u1161', '\u0915', '\u304b', '\u0628', 'o\u0323', '\u09c7'];
    const wrong: string[] = [];
    for (let unit = 0; unit < 0x10000; unit++) {
      const character = unit >= 0xd800 && unit < 0xdc00 ? String.fromCharCode(unit, 0xdc00) : String.fromCharCode(unit);
      if (character.search(beforeStarters) !== 0) continue;
      for (const start of before) {
        for (const end of ['', '\u0301', '\u0327']) {
          const rest = character + end;
          if ((start + rest).normalize(form) !== start.normalize(form) + rest.normalize(form)) wrong.push(character);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it('give what they give at once', () => {
    const change = inSequence([
      partwise((text) => text.normalize('NFKC'), beforeStarters),
      partwise(lowercase, anywhere),
    ]);
    for (const seed of [4, 5, 6]) {
      const text = mixed(seed).replace(/\p{Surrogate}/gu, '');
      expect(text.length).toBeGreaterThan(PART * 3);
      expect(finish(change(text)) === lowercase(text.normalize('NFKC'))).toBe(true);
    }
  });
});

describe('a queue of work', () => {
  function* spin(pieces: number): Work<number> {
    for (let piece = 0; piece < pieces; piece++) {
      const end = performance.now() + 0.5;
      while (performance.now() < end);
      yield;
    }
    return pieces;
  }

  it('lets the event loop turn, as often for many jobs as for their sum', async () => {
    const queue = new WorkQueue();
    let turns = 0;
    let isOver = false;
    const turn = () => {
      turns++;
      if (!isOver) setImmediate(turn);
    };
    turn();
    expect(await Promise.all(Array.from({ length: 10 }, () => queue.run(spin(10))))).toEqual(Array(10).fill(10));
    isOver = true;
    expect(turns).toBeGreaterThan(15); // 50 ms, 2.5 ms a turn
  });

  it('ends a job whose signal is aborted, and goes on with the others', async () => {
    const queue = new WorkQueue();
    const controller = new AbortController();
    const endless = queue.run(spin(Number.POSITIVE_INFINITY), controller.signal);
    const other = queue.run(spin(20));
    setTimeout(() => controller.abort(), 5);
    await expect(endless).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await other).toBe(20);
  });

  it('hands on what a job throws', async () => {
    const failing = function* (): Work<void> {
      yield;
      throw new RangeError('no');
    };
    await expect(new WorkQueue().run(failing())).rejects.toThrow('no');
  });
});
