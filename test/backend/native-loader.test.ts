import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadNativeAddon, prebuildTarget, tryAddons } from '../../src/backend/native-loader.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const shipped = `prebuilds/${prebuildTarget()}/engine.node`;
const built = 'build/Release/engine.node';

/** A file that is no library, last changed at a time in seconds. */
function fakeAddon(path: string, time: number): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), 'not a library');
  utimesSync(join(folder, path), time, time);
}

describe('the search for the addon', () => {
  beforeEach(() => vi.stubEnv('ENGINE_ADDON_PATH', ''));
  afterEach(() => vi.unstubAllEnvs());

  it('tries every place and keeps every failure', () => {
    const { loaded, failures } = tryAddons(folder);
    expect(loaded).toBeNull();
    expect(failures).toEqual([
      { path: shipped, reason: 'does not exist' },
      { path: built, reason: 'does not exist' },
      { path: 'build/Debug/engine.node', reason: 'does not exist' },
    ]);
  });

  it('prefers the shipped binary, unless one was built here since', () => {
    fakeAddon(shipped, 2000);
    fakeAddon(built, 1000);
    const firstTried = () => tryAddons(folder).failures[0]?.path;
    expect(firstTried()).toBe(shipped);
    fakeAddon(built, 3000);
    expect(firstTried()).toBe(built);
  });

  it('tries nothing but what ENGINE_ADDON_PATH names', () => {
    const path = join(folder, 'elsewhere.node');
    vi.stubEnv('ENGINE_ADDON_PATH', path);
    expect(tryAddons().failures).toEqual([{ path, reason: 'does not exist' }]);
    expect(() => loadNativeAddon()).toThrow(
      expect.objectContaining({ code: 'BACKEND_UNAVAILABLE', message: expect.stringContaining(path) }),
    );
  });
});
