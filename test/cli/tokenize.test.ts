import { describe, expect, it } from 'vitest';
import { runCli, runJson } from './run-cli.js';

describe('engine tokenize', () => {
  it('turns text into ids and back', async () => {
    const text = '  The king said: "Grüß Gott, 世界!" 🦊\n\nEnd ';
    const { token_ids } = await runJson<{ token_ids: number[] }>(['tokenize', text]);
    const { text: back } = await runJson<{ text: string }>(['tokenize', '--decode', token_ids.join(' ')]);
    expect(back).toBe(text);
    expect((await runJson<{ token_ids: number[] }>(['tokenize', text, '--no-special'])).token_ids).toEqual(
      token_ids.slice(1),
    );
  });

  it('reads special tokens in text only when told to', async () => {
    const plain = await runJson<{ token_ids: number[] }>(['tokenize', '<|endoftext|>', '--no-special']);
    const special = await runJson<{ token_ids: number[] }>([
      'tokenize',
      '<|endoftext|>',
      '--no-special',
      '--parse-special',
    ]);
    expect(special.token_ids).toEqual([0]);
    expect(plain.token_ids.length).toBeGreaterThan(1);
  });

  it('refuses ids that are none', async () => {
    for (const ids of ['1 x', '-3', '99999999']) {
      expect((await runCli(['tokenize', '--decode', ids])).code).toBe(2);
    }
  });
});
