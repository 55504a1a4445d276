import { describe, expect, it } from 'vitest';
import { threadCount } from '../../src/backend/thread-count.js';

/** A machine as files. */
const machine = (files: Readonly<Record<string, string>>) => threadCount((path) => files[path] ?? null);

const status = (list: string) => ({ '/proc/self/status': `Name:\tnode\nCpus_allowed_list:\t${list}\nThreads:\t11\n` });

/** Processors 2 i and 2 i + 1 share a core. */
const siblings = Object.fromEntries(
  Array.from({ length: 8 }, (_, cpu) => [
    `/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`,
    `${cpu & ~1}-${cpu | 1}\n`,
  ]),
);

describe('threadCount', () => {
  it('counts the processors this process may run on', () => {
    expect(machine(status('0-2,5'))).toEqual({ threads: 4, processors: 4, cores: 4, quota: null });
  });

  it('counts two siblings as one core', () => {
    expect(machine({ ...status('0-7'), ...siblings })).toMatchObject({ threads: 4, processors: 8, cores: 4 });
    expect(machine({ ...status('0,2-3'), ...siblings })).toMatchObject({ threads: 2, processors: 3, cores: 2 });
  });

  it('respects the quota of a control group, version 2, and of those above it', () => {
    const groups = { ...status('0-7'), '/proc/self/cgroup': '0::/a/b\n' };
    const limit = (text: string) => machine({ ...groups, '/sys/fs/cgroup/a/b/cpu.max': text });
    expect(limit('350000 100000\n')).toMatchObject({ threads: 3, quota: 3.5 });
    expect(limit('50000 100000\n')).toMatchObject({ threads: 1, quota: 0.5 });
    expect(limit('max 100000\n')).toMatchObject({ threads: 8, quota: null });
    expect(machine({ ...groups, '/sys/fs/cgroup/a/cpu.max': '200000 100000\n' })).toMatchObject({ threads: 2 });
    expect(machine({ ...groups, '/sys/fs/cgroup/cpu.max': '100000 100000\n' })).toMatchObject({ threads: 1 });
  });

  it('respects the quota of a control group, version 1', () => {
    const groups = { ...status('0-7'), '/proc/self/cgroup': '5:memory:/x\n4:cpu,cpuacct:/x\n' };
    const folder = '/sys/fs/cgroup/cpu,cpuacct/x';
    const period = { [`${folder}/cpu.cfs_period_us`]: '100000\n' };
    expect(machine({ ...groups, ...period, [`${folder}/cpu.cfs_quota_us`]: '250000\n' })).toMatchObject({ threads: 2 });
    expect(machine({ ...groups, ...period, [`${folder}/cpu.cfs_quota_us`]: '-1\n' })).toMatchObject({ quota: null });
  });

  it('never asks for more threads than barriers are good for', () => {
    expect(machine(status('0-255'))).toMatchObject({ threads: 64, processors: 256 });
  });

  it('asks Node where there is no /proc', () => {
    expect(machine({}).processors).toBeGreaterThan(0);
  });
});
