import { createHash, timingSafeEqual } from 'node:crypto';
import { EngineError } from '../base/errors.js';

export interface ApiKey {
  /** Who it belongs to: the tenant, in statistics and logs. */
  readonly name: string;
  readonly key: string;
}

const digest = (text: string) => createHash('sha256').update(text).digest();

/**
 * Says whose key a request carries. Hashes are compared, all of them and each in constant time, so that the time taken
 * tells nothing about a key.
 */
export class Authenticator {
  readonly #keys: readonly { readonly name: string; readonly hash: Buffer }[];

  /** Throws OPTION_INVALID for an empty key. */
  constructor(keys: readonly ApiKey[] = []) {
    for (const { name, key } of keys) {
      if (key !== '') continue;
      throw new EngineError('OPTION_INVALID', { option: `API key ${name}`, value: '', expected: 'a key' });
    }
    this.#keys = keys.map(({ name, key }) => ({ name, hash: digest(key) }));
  }

  get needsKey(): boolean {
    return this.#keys.length > 0;
  }

  /** Name of the key in an Authorization header; undefined where no key is needed. Throws API_KEY_INVALID. */
  tenantOf(authorization: string | undefined): string | undefined {
    if (!this.needsKey) return undefined;
    const given = keyIn(authorization);
    const hash = digest(given ?? '');
    let tenant: string | undefined;
    for (const key of this.#keys) if (timingSafeEqual(key.hash, hash)) tenant = key.name;
    if (tenant === undefined) throw new EngineError('API_KEY_INVALID', { given: given !== null });
    return tenant;
  }
}

/** The key of `Bearer KEY`, or the password of `Basic …`, which is how a browser asks its user for it. */
function keyIn(authorization = ''): string | null {
  const [, scheme, credentials] = /^(bearer|basic) +([^ ]+) *$/i.exec(authorization) ?? [];
  if (credentials === undefined) return null;
  if (scheme!.toLowerCase() === 'bearer') return credentials;
  const userAndPassword = Buffer.from(credentials, 'base64').toString();
  const colon = userAndPassword.indexOf(':');
  return colon < 0 ? null : userAndPassword.slice(colon + 1);
}
