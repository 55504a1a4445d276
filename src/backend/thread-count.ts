import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';

/** How many threads a step may use, and what says so. */
export interface ThreadCount {
  readonly threads: number;
  /** Processors this process may run on. */
  readonly processors: number;
  /** Of these, those that do not share their arithmetic units with another (SMT siblings). */
  readonly cores: number;
  /** Processors' worth of time the control group allows, or null for no limit. */
  readonly quota: number | null;
}

/** Beyond it barriers cost more than threads gain. */
const MAX_THREADS = 64;

/** Reads a text file; null if it cannot be read. Tests bring their own machine. */
export type ReadText = (path: string) => string | null;

/**
 * One thread for each core this process may use, at most the control group's quota: a thread more than that would be
 * stopped for part of every period, while all others wait for it.
 */
export function threadCount(read: ReadText = readText): ThreadCount {
  const allowed = /^Cpus_allowed_list:\s*(\S+)/m.exec(read('/proc/self/status') ?? '')?.[1];
  const list = allowed === undefined ? null : parseList(allowed);
  const processors = list?.length ?? availableParallelism();
  const cores = list === null ? processors : countCores(list, read);
  const quota = cpuQuota(read);
  const threads = Math.max(1, Math.min(cores, MAX_THREADS, Math.floor(quota ?? cores)));
  return { threads, processors, cores, quota };
}

/** "0-2,5" → [0, 1, 2, 5] */
function parseList(text: string): number[] {
  return text.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Processors of one core name the same siblings. */
function countCores(processors: readonly number[], read: ReadText): number {
  const siblings = processors.map(
    (cpu) => read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`) ?? String(cpu),
  );
  return new Set(siblings).size;
}

/** The lowest limit among this process's control groups, version 2 and version 1. */
function cpuQuota(read: ReadText): number | null {
  const quotas: number[] = [];
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (controllers === '') {
      for (const group of upwards(path)) {
        const [quota, period] = (read(join('/sys/fs/cgroup', group, 'cpu.max')) ?? 'max').split(/\s+/);
        quotas.push(Number(quota) / Number(period)); // NaN for "max"
      }
    } else if (controllers!.split(',').includes('cpu')) {
      for (const group of upwards(path)) {
        const folder = join('/sys/fs/cgroup', controllers!, group);
        const quota = Number(read(join(folder, 'cpu.cfs_quota_us')) ?? -1);
        const period = Number(read(join(folder, 'cpu.cfs_period_us')) ?? NaN);
        if (quota > 0) quotas.push(quota / period);
      }
    }
  }
  const limits = quotas.filter((quota) => quota > 0 && Number.isFinite(quota));
  return limits.length > 0 ? Math.min(...limits) : null;
}

/** A group's path and those above it; in a container the path may be one of the host, and only "/" be there. */
function upwards(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [path] : [path, ...upwards(parent)];
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
