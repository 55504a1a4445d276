import { createReadStream } from 'node:fs';
import { EngineError } from '../base/errors.js';
import type { ApiKey } from '../server/auth.js';

/** Bytes, and keys. */
const MAX_FILE_BYTES = 1 << 20;
const MAX_KEYS = 1000;

export interface ApiKeySources {
  readonly apiKey?: readonly string[] | undefined;
  readonly apiKeyFile?: string | undefined;
  /** The environment variable ENGINE_API_KEY. */
  readonly variable?: string | undefined;
}

/**
 * Keys from flags, file and environment, each written NAME:KEY or KEY. Several keys may have one name: they are one tenant,
 * so that a new key can be handed out before the old one ends. Throws OPTION_INVALID, FILE_NOT_FOUND, FILE_UNREADABLE.
 */
export async function readApiKeys({ apiKey = [], apiKeyFile, variable }: ApiKeySources): Promise<readonly ApiKey[]> {
  const texts = [
    ...apiKey,
    ...(apiKeyFile === undefined ? [] : await linesOf(apiKeyFile)),
    ...(variable ? [variable] : []), // empty is as good as unset
  ];
  if (texts.length > MAX_KEYS)
    throw new EngineError('OPTION_INVALID', {
      option: 'number of API keys',
      value: texts.length,
      expected: `at most ${MAX_KEYS}`,
    });
  const keys = texts.map(parseKey);
  const names = new Map<string, string>();
  for (const { name, key } of keys) {
    const other = names.get(key);
    if (other !== undefined) {
      const expected = `a key of its own, not that of ${other}`;
      throw new EngineError('OPTION_INVALID', { option: `API key ${name}`, value: '***', expected });
    }
    names.set(key, name);
  }
  return keys;
}

/** Never shows a key in an error. */
function parseKey(text: string, index: number): ApiKey {
  const [, name = `key-${index + 1}`, key = ''] = /^(?:([\w.-]{1,64}):)?(.*)$/s.exec(text) ?? [];
  if (/^[\x21-\x7e]{8,512}$/.test(key)) return { name, key };
  const expected = 'NAME:KEY or KEY, with 8 to 512 visible ASCII characters in the key';
  throw new EngineError('OPTION_INVALID', { option: `API key ${name}`, value: '***', expected });
}

/** Lines that are neither empty nor a comment. */
async function linesOf(path: string): Promise<string[]> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > MAX_FILE_BYTES) throw new Error(`it has more than ${MAX_FILE_BYTES} bytes`);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new EngineError('FILE_NOT_FOUND', { what: 'API key file', path });
    throw new EngineError('FILE_UNREADABLE', { path, reason: message });
  }
  const lines = Buffer.concat(chunks)
    .toString('utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length > 0) return lines;
  throw new EngineError('FILE_UNREADABLE', { path, reason: 'it has no key' }); // a server without a key was not meant
}
