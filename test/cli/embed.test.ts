import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Engine } from '../../src/library/engine.js';
import { runCli, runJson } from './run-cli.js';
import { writeTinyChatModel } from './tiny-chat-model.js';

interface Report {
  model: string;
  backend: string;
  embeddings: number[][];
  similarity?: number[][];
  usage: { prompt_tokens: number };
}

const folder = mkdtempSync(join(tmpdir(), 'engine-cli-embed-'));
const HIDDEN_SIZE = 32;
const model = ['-m', writeTinyChatModel(join(folder, 'tiny.gguf'))];
const embed = (args: readonly string[], input?: string) =>
  runCli(['embed', ...model, ...args], input === undefined ? {} : { input });
const lengthOf = (vector: readonly number[]) => Math.hypot(...vector);

describe('engine embed', () => {
  it('prints a JSON list for each text, from every source', async () => {
    const file = join(folder, 'texts.txt');
    writeFileSync(file, 'the old king\r\na fox\n');
    const runs = await Promise.all([
      embed(['the old king', 'a fox']),
      embed(['--file', file]),
      embed([], 'the old king\na fox'),
      embed(['-'], 'the old king\na fox\n'),
    ]);
    for (const { code, stdout, stderr } of runs) {
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toBe(runs[0]!.stdout);
    }
    const vectors = runs[0]!.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as number[]);
    expect(vectors.map(({ length }) => length)).toEqual([HIDDEN_SIZE, HIDDEN_SIZE]);
    for (const vector of vectors) expect(lengthOf(vector)).toBeCloseTo(1, 5);
    expect(vectors[0]).not.toEqual(vectors[1]);
  });

  it('prints one JSON object with --json', async () => {
    const args = ['embed', ...model, 'abc', 'de', '--dimensions', '5', '--pooling', 'last'];
    const report = await runJson<Report>(args);
    expect(Object.keys(report)).toEqual(['model', 'backend', 'embeddings', 'usage']);
    expect(report.model).toBe('tiny.gguf');
    expect(report.usage).toEqual({ prompt_tokens: 5 });
    expect(report.embeddings.map(({ length }) => length)).toEqual([5, 5]);
    const whole = await runJson<Report>([...args.slice(0, 5), '--pooling', 'last']);
    const cut = whole.embeddings[0]!.slice(0, 5);
    for (const [i, value] of cut.entries()) expect(report.embeddings[0]![i]).toBeCloseTo(value / lengthOf(cut), 6);
  });

  it('gives back the float32 numbers to the last bit', async () => {
    const { embeddings } = await runJson<Report>(['embed', ...model, 'abc']);
    await using engine = await Engine.load({ model: model[1] });
    const [vector] = await engine.embed(['abc']);
    expect(Float32Array.from(embeddings[0]!)).toEqual(vector);
    expect(JSON.stringify(embeddings[0]).length).toBeLessThan(HIDDEN_SIZE * 16); // and not those of a double
  });

  it('prints the cosine of every pair with --similarity', async () => {
    const texts = ['a king', 'a queen', 'a king'];
    const { stdout } = await embed([...texts, '--similarity']);
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.trim().split(/ +/).map(Number));
    const { embeddings, similarity } = await runJson<Report>(['embed', ...model, ...texts, '--similarity']);
    for (const [i, a] of embeddings.entries()) {
      for (const [j, b] of embeddings.entries()) {
        const cosine = a.reduce((sum, value, k) => sum + value * b[k]!, 0);
        expect(similarity![i]![j]).toBeCloseTo(cosine, 5);
        expect(rows[i]![j]).toBeCloseTo(cosine, 3);
      }
    }
    expect(rows[0]![2]).toBe(1);
    expect(rows[0]![1]).toBeLessThan(1);
  });

  it('takes more texts than one request may have, in their order', async () => {
    const texts = Array.from({ length: 1100 }, (_, i) => (i === 1050 ? 'another' : 'x'));
    const lines = (await embed(['--dimensions', '2'], texts.join('\n'))).stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(1100);
    expect(new Set(lines).size).toBe(2);
    expect(lines.filter((line) => line === lines[1050])).toHaveLength(1);
  });

  it.each<[string, string[], RegExp, string?]>([
    ['an empty text', ['a', ''], /\[PROMPT_EMPTY\] input 1 is empty/],
    ['an empty line, counted from the first', [], /\[PROMPT_EMPTY\] input 600 is empty/, `${'x\n'.repeat(600)}\nx`],
    ['nothing on stdin', [], /\[PROMPT_EMPTY\] input 0 is empty/, ''],
    ['a text that is too long', ['a', 'word '.repeat(80)], /\[PROMPT_TOO_LONG\] input 1 has 400 tokens; .* 256/],
    ['texts beside a file', ['a', '--file', 'b'], /\[OPTION_INVALID\] --file is "b"/],
    ['a missing file', ['--file', join(folder, 'none')], /\[FILE_NOT_FOUND\].*none/],
    ['too many dimensions', ['a', '--dimensions', '33'], /\[OPTION_INVALID\] --dimensions is 33; .* 1 to 32/],
    ['another pooling', ['a', '--pooling', 'max'], /\[OPTION_INVALID\] --pooling is "max"/],
    ['too many pairs', ['--similarity'], /\[OPTION_INVALID\] --similarity is "2049 texts"/, 'x\n'.repeat(2049)],
    ['an unknown flag', ['a', '--colour'], /\[USAGE\].*--colour/],
  ])('refuses %s with one line and exit code 2', async (_, args, message, input) => {
    const { code, stderr } = await embed(args, input);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(code).toBe(2);
  });

  it('ends with exit code 130 on Ctrl-C', async () => {
    const input = 'some words of a longer text\n'.repeat(20_000);
    const { code, stderr } = await runCli(['embed', ...model, '--backend', 'reference'], {
      input,
      onFirstOutput: (kill) => kill('SIGINT'),
    });
    expect(code).toBe(130);
    expect(stderr).toMatch(/^engine: \[ABORTED\]/);
  });
});
