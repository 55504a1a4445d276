import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import { nativeInfo } from '../backend/native.js';
import { packageRoot } from '../base/package-files.js';

/** What measurements depend on besides the program. */
export interface Machine {
  readonly cpu: string;
  readonly processors: number;
  readonly cores: number;
  /** CPU time that the process may use, in processors; null without a quota. */
  readonly cpu_quota: number | null;
  readonly instruction_set: string | null;
  readonly memory_bytes: number;
  readonly platform: string;
  readonly node: string;
}

export function describeMachine(): Machine {
  const native = nativeInfo();
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    processors: native.threads.processors,
    cores: native.threads.cores,
    cpu_quota: native.threads.quota,
    instruction_set: native.isa,
    memory_bytes: totalmem(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
  };
}

/** The commit that this program is built from, with `-dirty` if files differ from it; null outside of a clone. */
export function describeCommit(): string | null {
  const root = packageRoot();
  if (root === null) return null;
  const git = (...args: string[]) => {
    return execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  };
  try {
    // Installed inside of another repository, a package would name a commit of that.
    if (git('rev-parse', '--show-prefix') !== '') return null;
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '-dirty');
  } catch {
    return null;
  }
}
