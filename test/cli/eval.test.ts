import { existsSync, mkdtempSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { embeddedModel } from '../../src/library/embedded-model.js';
import { runCli, runJson } from './run-cli.js';
import { writeTinyChatModel } from './tiny-chat-model.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-eval-'));
const text = join(folder, 'text.txt');
writeFileSync(text, `${'Once upon a time there was a king who had three daughters. '.repeat(6)}\n`);
const model = writeTinyChatModel(join(folder, 'tiny.gguf'));
const on = (path: string) => ['-m', model, '--file', path];

describe('engine eval perplexity', () => {
  it('prints one JSON object, and nothing else', async () => {
    const { code, stdout, stderr } = await runCli(['eval', 'perplexity', '--file', text, '--json']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Record<string, number>;
    expect(report).toMatchObject({ model: 'fable-q8_0.gguf', window: 512, stride: 511, impossible_tokens: 0 });
    expect(Object.keys(report)).toEqual([
      'model',
      'backend',
      'perplexity',
      'perplexity_error',
      'nll',
      'nll_error',
      'bits_per_byte',
      'top1_accuracy',
      'impossible_tokens',
      'tokens',
      'bytes',
      'windows',
      'window',
      'stride',
      'tokens_per_second',
    ]);
    expect(report.bytes).toBe(readFileSync(text).length - 1); // one line break at the end is dropped
    expect(report.perplexity).toBeCloseTo(Math.exp(report.nll!), 10);
    expect(report.perplexity).toBeLessThan(20); // it has read fairy tales
    expect(report.tokens_per_second).toBeGreaterThan(0);
  });

  it('prints a table, and no progress where nobody watches', async () => {
    const { stdout, stderr } = await runCli(['eval', 'perplexity', ...on(text), '--window', '32']);
    expect(stdout).toMatch(/^model +tiny\.gguf on native-cpu/);
    expect(stdout).toMatch(/\nperplexity +[\d.]+ ± [\d.]+\n/);
    expect(stdout).toMatch(/\nbits per byte +[\d.]+\n/);
    expect(stdout).toMatch(/\nscored +353 tokens in 12 windows of 32, stride 31\n/);
    expect(stderr).toBe('');
  });

  it('reads the text from stdin, and token ids in place of a text', async () => {
    const words = readFileSync(text, 'utf8');
    const perplexityOf = async (args: string[], input = '') => {
      const run = await runJson<{ perplexity: number; tokens: number }>(['eval', 'perplexity', '-m', model, ...args], {
        input,
      });
      return [run.perplexity, run.tokens];
    };
    expect(await perplexityOf(['--file', '-'], words)).toEqual(await perplexityOf(['--file', text]));
    const ids = join(folder, 'ids.txt');
    const bytes = [...Buffer.from(words.trimEnd())]; // this model's tokens are bytes
    writeFileSync(ids, `[${bytes.join(', ')}]\n`);
    const [, tokens] = await perplexityOf(['--token-ids', ids]);
    expect(tokens).toBe(352); // used as they are, the first is only context
    expect(await perplexityOf(['--token-ids', '-', '--max-tokens', '100'], bytes.join('\n'))).toEqual(
      await perplexityOf(['--token-ids', ids, '--max-tokens', '100']),
    );
  });

  it('goes on from what --resume keeps, to the last bit', async () => {
    const state = join(folder, 'perplexity.json');
    const args = ['eval', 'perplexity', ...on(text), '--window', '16'];
    const { tokens_per_second: _, ...whole } = await runJson(args);
    const first = await runJson([...args, '--resume', state]);
    expect(first).toMatchObject(whole);
    const saved = JSON.parse(readFileSync(state, 'utf8')) as { windows: number };
    expect(saved.windows).toBe(whole.windows);
    const again = await runJson<{ tokens_per_second: number }>([...args, '--resume', state, '--threads', '1']);
    expect(again).toMatchObject({ ...whole, tokens_per_second: 0 });
    expect(readdirSync(folder).filter((name) => name.startsWith('perplexity.json'))).toEqual(['perplexity.json']);
  });

  it('keeps what is done when it is interrupted', async () => {
    const state = join(folder, 'interrupted.json');
    const long = join(folder, 'long.txt');
    writeFileSync(long, 'Once upon a time there was a king. '.repeat(300));
    const args = ['eval', 'perplexity', ...on(long), '--window', '16'];
    const { spawn } = await import('node:child_process');
    const main = new URL('../../dist/cli/main.js', import.meta.url).pathname;
    const child = spawn(process.execPath, [main, ...args, '--resume', state], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (data: string) => {
      stderr += data;
    });
    const watch = setInterval(() => {
      if (!existsSync(state)) return;
      clearInterval(watch); // a second interrupt would end it at once
      child.kill('SIGINT');
    }, 5);
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(130);
    expect(stderr).toMatch(/^engine: .*interrupted\.json keeps \d+ windows; .*\nengine: \[ABORTED\]/);
    const { tokens_per_second: _, ...whole } = await runJson(args);
    expect(await runJson([...args, '--resume', state])).toMatchObject(whole);
  });

  it('refuses to resume what was begun otherwise, and leaves it as it is', async () => {
    const state = join(folder, 'otherwise.json');
    const args = ['eval', 'perplexity', ...on(text), '--resume', state];
    await runJson(args);
    const before = readFileSync(state, 'utf8');
    for (const [more, problem] of [
      [['--window', '99'], /window was 256 and is 99/],
      [['--activations', 'q8'], /--activations was not given and is q8/],
      [['--kv-dtype', 'f16'], /--kv-dtype was not given and is f16/],
      [['--backend', 'reference'], /run by was native-cpu and is reference/],
      [['--max-tokens', '9'], /text was \w+ and is \w+/],
    ] as const) {
      const { code, stderr } = await runCli([...args, ...more]);
      expect(stderr).toMatch(/^engine: \[SAVED_EVALUATION_UNUSABLE\] .*\n$/);
      expect(stderr).toMatch(problem);
      expect(code).toBe(2);
    }
    utimesSync(model, 1e9, 1e9); // the model was written anew
    expect((await runCli(args)).stderr).toMatch(/files was tiny\.gguf \(\d+ bytes of [-\d:TZ.]+\) and is/);
    expect(readFileSync(state, 'utf8')).toBe(before);
  });
});

describe('engine eval kl', () => {
  it('prints one JSON object', async () => {
    const args = ['eval', 'kl', '-m', embeddedModel, '--reference', embeddedModel, '--file', text];
    const report = await runJson<Record<string, number>>(args);
    expect(report).toMatchObject({
      model: 'fable-q8_0.gguf',
      reference: 'fable-q8_0.gguf',
      reference_activations: 'f32',
      impossible_tokens: 0,
    });
    // The same file: what is left is what 8-bit activations and float16 keys and values change.
    expect(report.kl_mean).toBeGreaterThan(0);
    expect(report.kl_mean).toBeLessThan(0.01);
    const order = ['kl_median', 'kl_p90', 'kl_p99', 'kl_p999', 'kl_max'].map((name) => report[name]!);
    expect(order).toEqual(order.toSorted((a, b) => a - b));
    expect(report.top1_agreement).toBeGreaterThan(0.9);
    expect(report.perplexity_ratio).toBeCloseTo(report.perplexity! / report.reference_perplexity!, 12);
    expect(report.delta_logprob_mean).toBeCloseTo(-Math.log(report.perplexity_ratio!), 6);
    const exactly = ['--activations', 'f32', '--kv-dtype', 'f32', '--max-tokens', '50'];
    const exact = await runJson<Record<string, number>>([...args, ...exactly]);
    expect(exact).toMatchObject({ kl_mean: 0, kl_max: 0, top1_agreement: 1, perplexity_ratio: 1, tokens: 50 });
  });

  it('prints a table', async () => {
    const { stdout, stderr } = await runCli(['eval', 'kl', ...on(text), '--reference', model, '--kv-dtype', 'f16']);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/\nKL mean +[\d.e-]+ ± [\d.e-]+ nats per token\n/);
    expect(stdout).toMatch(/\nsame top-1 +[\d.]+ % ± [\d.]+ %\n/);
  });

  it('resumes, and not with another reference', async () => {
    const state = join(folder, 'kl.json');
    const args = ['eval', 'kl', ...on(text), '--window', '64', '--kv-dtype', 'f16', '--resume', state, '--reference'];
    const { tokens_per_second: _, ...whole } = await runJson([...args, model]);
    expect(await runJson([...args, model])).toEqual({ ...whole, tokens_per_second: 0 });
    const other = writeTinyChatModel(join(folder, 'other.gguf'), null);
    const { code, stderr } = await runCli([...args, other]);
    expect(stderr).toMatch(/\[SAVED_EVALUATION_UNUSABLE\].*reference was tiny\.gguf and is other\.gguf/);
    expect(code).toBe(2);
  });
});

describe('engine eval answers wrong input with one line and exit code 2:', () => {
  const empty = join(folder, 'empty.txt');
  writeFileSync(empty, '\n');
  const damaged = join(folder, 'damaged.json');
  writeFileSync(damaged, '{"version": 1');
  const cases: [name: string, args: string[], message: RegExp][] = [
    ['another evaluation', ['speed'], /\[OPTION_INVALID\] engine eval is "speed"; expected perplexity or kl/],
    ['no text', ['perplexity', '-m', model], /\[OPTION_INVALID\] --file is missing/],
    ['two texts', ['perplexity', ...on(text), '--token-ids', text], /\[OPTION_INVALID\] --file is/],
    ['a missing text', ['perplexity', ...on(join(folder, 'none.txt'))], /\[FILE_NOT_FOUND\].*none\.txt/],
    ['an empty text', ['perplexity', ...on(empty)], /\[TEXT_TOO_SHORT\].* 0 tokens.*at least 2; give a longer text/],
    ['words for ids', ['perplexity', '-m', model, '--token-ids', text], /\[OPTION_INVALID\] --token-ids is "Once"/],
    ['a window beyond the context', ['perplexity', ...on(text), '--window', '257'], /--window is 257.* 2 to 256/],
    ['a stride of a window', ['perplexity', ...on(text), '--stride', '256'], /--stride is 256.* 1 to 255/],
    ['no tokens', ['perplexity', ...on(text), '--max-tokens', '0'], /--max-tokens is 0/],
    ['a damaged saved file', ['perplexity', ...on(text), '--resume', damaged], /\[FORMAT_INVALID\].*damaged\.json/],
    ['a folder to save in', ['perplexity', ...on(text), '--resume', folder], /\[FILE_UNREADABLE\]/],
    ['no place to save', ['perplexity', ...on(text), '--resume', join(folder, 'a/b')], /\[FILE_UNWRITABLE\]/],
    ['no reference', ['kl', ...on(text)], /\[OPTION_INVALID\] --reference is missing/],
    ['another vocabulary', ['kl', ...on(text), '--reference', embeddedModel], /\[VOCABULARY_MISMATCH\].*259 and 4096/],
  ];

  it.each(cases)('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await runCli(['eval', ...args]);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });
});
