import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { resolve } from 'node:path';
import { EngineError } from '../base/errors.js';
import type { FileStamp } from './model-file.js';

/** Bytes that can be read at any place; a file, or memory in tests. */
export interface ByteSource {
  /** Names the source in messages. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Fills all of `target` with the bytes from `position` on; throws FORMAT_INVALID if there are not enough. */
  read(target: Uint8Array, position: number): void;
}

export interface OpenFile extends ByteSource {
  readonly stamp: FileStamp;
}

/** What an operating system's error code means to a user; other codes are shown as they are. */
const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a folder',
  ELOOP: 'its symbolic links form a loop',
  ENAMETOOLONG: 'the name is too long',
  ENXIO: 'it is not a regular file',
  ERR_INVALID_ARG_VALUE: 'the path contains a NUL character',
};

/** The EngineError for a failed file system call on `path`. `what` says what the file would have been ("model"). */
export function fileError(error: unknown, path: string, what: string): EngineError {
  if (error instanceof EngineError) return error;
  const code = String((error as NodeJS.ErrnoException).code ?? 'unknown error');
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new EngineError('FILE_NOT_FOUND', { path, what }, { cause: error });
  return new EngineError('FILE_UNREADABLE', { path, reason: reasons[code] ?? code }, { cause: error });
}

/**
 * Opens a regular file for the time of `use`, which gets absolute paths, and closes it whatever happens.
 *
 * Throws FILE_NOT_FOUND, or FILE_UNREADABLE for folders, devices, pipes and sockets: reading those could block for
 * ever or never end.
 */
export function withFile<T>(path: string, what: string, use: (file: OpenFile) => T): T {
  const absolute = resolve(path);
  let descriptor: number;
  try {
    // Opening a pipe waits for its writer unless asked not to; Windows has neither such pipes nor the flag.
    descriptor = openSync(absolute, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw fileError(error, absolute, what);
  }
  try {
    const stat = fstatSync(descriptor);
    if (stat.isDirectory()) throw new EngineError('FILE_UNREADABLE', { path: absolute, reason: 'it is a folder' });
    if (!stat.isFile()) {
      throw new EngineError('FILE_UNREADABLE', { path: absolute, reason: 'it is not a regular file' });
    }
    return use({
      path: absolute,
      size: stat.size,
      stamp: { size: stat.size, mtimeMs: stat.mtimeMs },
      read: (target, position) => readFully(descriptor, absolute, target, position),
    });
  } finally {
    closeSync(descriptor);
  }
}

/** One read call moves at most this many bytes: Node and some systems fail on 2 GiB and more. */
const MAX_READ = 1 << 30;

function readFully(descriptor: number, path: string, target: Uint8Array, position: number): void {
  for (let done = 0; done < target.length; ) {
    let count: number;
    try {
      count = readSync(descriptor, target, done, Math.min(target.length - done, MAX_READ), position + done);
    } catch (error) {
      throw fileError(error, path, 'model');
    }
    if (count === 0) throw truncated(path, target.length, position, position + done);
    done += count;
  }
}

/** A source of bytes in memory, for headers that are already there. */
export function memorySource(path: string, bytes: Uint8Array): ByteSource {
  return {
    path,
    size: bytes.length,
    read(target, position) {
      if (position + target.length > bytes.length) throw truncated(path, target.length, position, bytes.length);
      target.set(bytes.subarray(position, position + target.length));
    },
  };
}

function truncated(path: string, wanted: number, position: number, size: number): EngineError {
  const problem = `but ${wanted} bytes are needed from byte ${position} on`;
  return new EngineError('FORMAT_INVALID', { path, field: 'file size', value: size, problem });
}
