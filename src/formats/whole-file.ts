import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { EngineError } from '../base/errors.js';

/** Appends bytes to the file that is being written. */
export type WriteBytes = (bytes: Uint8Array) => Promise<void>;

/**
 * Writes a file that appears under its name when it is complete: until then it is `PATH.partial-PID`, which is removed
 * if anything goes wrong. One process must not write the same path twice at once.
 *
 * Throws FILE_UNWRITABLE (a full disk, permissions), ABORTED, and what `produce` throws.
 */
export async function writeWholeFile(
  path: string,
  signal: AbortSignal | undefined,
  produce: (write: WriteBytes) => Promise<void>,
): Promise<void> {
  const partial = `${path}.partial-${process.pid}`;
  const writing = <T>(action: Promise<T>) => action.catch((error) => Promise.reject(writeError(error, path)));
  refuseAborted(signal);
  const file = await writing(open(partial, 'w'));
  try {
    await produce(async (bytes) => {
      refuseAborted(signal);
      await writing(writeAll(file, bytes));
    });
    refuseAborted(signal);
    await writing(file.sync());
    await file.close();
    await writing(rename(partial, path));
  } catch (error) {
    await file.close().catch(() => undefined); // closed already if renaming failed
    await rm(partial, { force: true });
    throw error;
  }
}

/** Node fails on writes of 2 GiB and more. */
const MAX_WRITE = 1 << 30;

/** One call may write less than it is given. */
async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.length - done, MAX_WRITE));
    done += bytesWritten;
  }
}

function refuseAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new EngineError('ABORTED', {});
}

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on the disk',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file system allows no file of this size',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOENT: 'its folder does not exist',
  ENOTDIR: 'its folder does not exist',
  EISDIR: 'it is a folder',
  ENOTEMPTY: 'it is a folder',
};

/** The EngineError for a failed file system call that was to write `path`. */
export function writeError(error: unknown, path: string): EngineError {
  const code = String((error as NodeJS.ErrnoException).code ?? 'unknown error');
  return new EngineError('FILE_UNWRITABLE', { path, reason: reasons[code] ?? code }, { cause: error });
}
