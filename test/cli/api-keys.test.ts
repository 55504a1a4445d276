import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readApiKeys } from '../../src/cli/api-keys.js';

const folder = mkdtempSync(join(tmpdir(), 'engine-keys-'));
function keyFile(text: string): string {
  const path = join(folder, `keys-${Math.random()}`);
  writeFileSync(path, text);
  return path;
}

describe('API keys', () => {
  it('come from flags, a file and the environment, with or without a name', async () => {
    const apiKeyFile = keyFile('# of the team\nalice:alice-key-1\n\nalice:alice-key-2\r\n');
    const keys = await readApiKeys({ apiKey: ['flag-key-1', 'bob:flag-key-2'], apiKeyFile, variable: 'environment' });
    expect(keys).toEqual([
      { name: 'key-1', key: 'flag-key-1' },
      { name: 'bob', key: 'flag-key-2' },
      { name: 'alice', key: 'alice-key-1' },
      { name: 'alice', key: 'alice-key-2' },
      { name: 'key-5', key: 'environment' },
    ]);
    expect(await readApiKeys({ variable: '' })).toEqual([]);
  });

  it('keep what follows the first colon', async () => {
    expect(await readApiKeys({ apiKey: ['a:with:colons'] })).toEqual([{ name: 'a', key: 'with:colons' }]);
  });

  it('are refused when they are short, not ASCII or given twice, and never shown', async () => {
    for (const apiKey of [['alice:secret'], ['alice:sécret-secret'], ['alice:a secret key']]) {
      await expect(readApiKeys({ apiKey })).rejects.toThrow(/^API key alice is "\*\*\*"; expected NAME:KEY or KEY/);
    }
    await expect(readApiKeys({ apiKey: ['a:the-same-key', 'b:the-same-key'] })).rejects.toThrow(
      /^API key b is "\*\*\*"; expected a key of its own, not that of a$/,
    );
  });

  it('are not read from files that are absent, empty or too large', async () => {
    const read = (apiKeyFile: string) => readApiKeys({ apiKeyFile });
    await expect(read(join(folder, 'absent'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await expect(read(keyFile('# nothing\n'))).rejects.toThrow('it has no key');
    await expect(read(keyFile('x'.repeat(2 ** 20 + 1)))).rejects.toThrow('it has more than 1048576 bytes');
    await expect(read(keyFile('long-key\n'.repeat(1001)))).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  });
});
