import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { root } from './consumer.js';

function buildPrebuild(...args: string[]): { status: number | null; stderr: string } {
  const options = { cwd: root, encoding: 'utf8', env: { ...process.env, ENGINE_ZIG: '', CXX: '' } } as const;
  return spawnSync(process.execPath, ['scripts/build-prebuild.mjs', ...args], options);
}

it('a prebuilt addon is not made for a machine that no compiler here builds for', () => {
  const { status, stderr } = buildPrebuild('--target', 'sunos-x64');
  expect(status).toBe(1);
  expect(stderr).toMatch(/^sunos-x64 is not this machine \(.+\); build it there/);
});
