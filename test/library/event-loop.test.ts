import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Engine } from '../../src/library/engine.js';
import { TextCompleter } from '../../src/serving/completer.js';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.js';
import { itWithData } from '../shared-data.js';
import { ggufTokenizer, jsonTokenizer, tokenizerJsonFiles, vocabularyFiles } from '../tokenizer/vocabularies.js';

const LENGTH = 500_000; // UTF-16 units

const source = readFileSync(new URL('../../src/tokenizer/gguf-words.ts', import.meta.url), 'utf8');
const texts = {
  code: source.repeat(Math.ceil(LENGTH / source.length)).slice(0, LENGTH),
  'one word': 'a'.repeat(LENGTH),
  emoji: '😀'.repeat(LENGTH / 2),
};

/**
 * Milliseconds that turns of the event loop take meanwhile, ascending. Where another program had the processor in
 * between, which is no work of ours, what this process computed in the turn counts.
 */
async function turnsDuring(work: () => Promise<unknown>): Promise<number[]> {
  const now = () => {
    const { user, system } = process.cpuUsage();
    return { wall: performance.now(), computed: (user + system) / 1000 };
  };
  const turns: number[] = [];
  let last = now();
  let isOver = false;
  const turn = () => {
    const { wall, computed } = now();
    turns.push(Math.min(wall - last.wall, computed - last.computed));
    last = { wall, computed };
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  await work();
  isOver = true;
  return turns.sort((a, b) => a - b);
}

const reader = (tokenizer: Tokenizer) => {
  const limits = {
    contextSize: LENGTH * 4,
    numBlocks: 1,
    blockSize: 16,
    maxTokens: 64,
    maxSequences: 1,
    kvDtype: 'f32',
  };
  const submit = () => {
    throw new Error('nothing is generated here');
  };
  return new TextCompleter({ limits, vocabSize: tokenizer.vocabSize, submit } as never, tokenizer, null, 'model');
};

describe('the event loop goes on while half a megabyte is tokenised', () => {
  const tokenizers = [
    ['bytes', vocabularyFiles['llama-bpe'], ggufTokenizer],
    ['SentencePiece', vocabularyFiles['llama-spm'], ggufTokenizer],
    ['unigram', tokenizerJsonFiles['t5-small'], jsonTokenizer],
    ['WordPiece', vocabularyFiles['bert-bge'], ggufTokenizer],
  ] as const;
  for (const [name, file, load] of tokenizers) {
    itWithData(file, name, async (path) => {
      const tokenizer = load(path);
      for (const [kind, prompt] of Object.entries(texts)) {
        let best = { median: Number.POSITIVE_INFINITY, max: Number.POSITIVE_INFINITY };
        // Compilation and collection of garbage come in now and then, and a list of a million ids that grows is copied.
        for (let round = 0; round < 5 && !(best.median < 5 && best.max < 25); round++) {
          const turns = await turnsDuring(async () => reader(tokenizer).readPrompt({ prompt }));
          const median = turns[Math.floor(turns.length / 2)]!;
          const max = turns.at(-1)!;
          if (max < best.max) best = { median, max };
        }
        expect(best.median, kind).toBeLessThan(5);
        expect(best.max, kind).toBeLessThan(25);
      }
    });
  }
});

describe('a long prompt', () => {
  const load = () => Engine.load({ contextSize: 512 });
  const first = async (engine: Engine, prompt: string) => {
    for await (const event of engine.generate({ prompt, maxTokens: 1 })) return event;
    return null;
  };

  it('is refused before it is read to its end, in generation and in embedding', async () => {
    await using engine = await load();
    const read = 'once upon a time '.repeat(LENGTH / 17);
    const started = performance.now();
    await expect(first(engine, read)).rejects.toThrow(/^prompt has more than 511 tokens; the context allows 511/);
    await expect(engine.embed(['a', read])).rejects.toThrow(
      /^input 1 has more than 512 tokens; the context allows 512/,
    );
    const both = performance.now() - started;
    const whole = performance.now();
    expect(() => engine.promptIds({ prompt: read })).toThrow(/^prompt has \d{5,} tokens/);
    expect(both).toBeLessThan(performance.now() - whole);
  });

  it('ends with reason abort when its signal is aborted while it is read', async () => {
    await using engine = await load();
    const abort = new AbortController();
    const read = 'x'.repeat(LENGTH); // one word, which is not cut short
    setTimeout(() => abort.abort(), 5);
    const answer = await engine.complete({ prompt: read, signal: abort.signal });
    expect(answer).toMatchObject({ finishReason: 'abort', tokenIds: [], promptTokenIds: [] });
    await expect(engine.embed({ inputs: [read], signal: abort.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    expect(engine.stats().steps).toBe(0);
  });

  it('of which only the ids are wanted is read in pieces too, a short one at once', async () => {
    await using engine = await load();
    const text = 'once upon a time '.repeat(400);
    const read = engine.readText(text, { addSpecialTokens: false });
    expect(read).toBeInstanceOf(Promise);
    expect(await read).toEqual(engine.encode(text, { addSpecialTokens: false }));
    expect(engine.readText('once')).toEqual(engine.encode('once'));
    expect(engine.readPrompt({ prompt: 'once' })).toEqual(engine.promptIds({ prompt: 'once' }));
    const abort = AbortSignal.abort();
    await expect(engine.readPrompt({ prompt: text }, abort)).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('has the ids that it has when it is read at once, many of them together', async () => {
    await using engine = await Engine.load({ contextSize: 1024 });
    const prompts = [1, 2, 3].map((n) => `${n} ${'something because '.repeat(300)}`);
    const answers = await Promise.all(prompts.map((prompt) => engine.complete({ prompt, maxTokens: 1 })));
    for (const [i, prompt] of prompts.entries()) {
      expect(prompt.length).toBeGreaterThan(4000);
      expect(answers[i]!.promptTokenIds).toEqual([...engine.promptIds({ prompt })]);
    }
  });
});
