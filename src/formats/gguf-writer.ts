import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { EngineError, invariant } from '../base/errors.js';
import { type DType, dtypes } from '../tensor/dtype.js';
import { withFile } from './byte-source.js';
import { ggufLimits, readGguf } from './gguf.js';
import { ByteWriter, type GgufValueToWrite, writeValue } from './gguf-encode.js';

export interface GgufTensorToWrite {
  readonly name: string;
  readonly dtype: DType;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** Bytes stored. */
  readonly byteLength: number;
}

export interface GgufWriteOptions {
  /** Bytes to whose multiples tensors are aligned, a power of two; default 64, a cache line. */
  readonly alignment?: number | undefined;
  /** Gives up with ABORTED. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes of tensors written so far, and of all tensors. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

const DEFAULT_ALIGNMENT = 64;
const ALIGNMENT_KEY = 'general.alignment';

/**
 * Writes a GGUF file, version 3. `bytesOf` gives the bytes of one tensor, in pieces of any size that are never held
 * longer than it takes to write them; tensors are asked for in order. The value of general.alignment is the option's,
 * whatever `metadata` says.
 *
 * The file appears under its name when it is complete: until then it is `PATH.partial-PID`, which is removed if anything
 * goes wrong. One process must not write the same path twice at once. That `path` is no file that is being read is for
 * the caller to check.
 *
 * Throws FILE_UNWRITABLE (a full disk, permissions), ABORTED, and what `bytesOf` throws.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufValueToWrite>,
  tensors: readonly GgufTensorToWrite[],
  bytesOf: (index: number) => Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: GgufWriteOptions = {},
): Promise<void> {
  const { alignment = DEFAULT_ALIGNMENT, signal, onProgress } = options;
  const header = encodeHeader(metadata, tensors, alignment);
  const totalBytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const partial = `${path}.partial-${process.pid}`;
  const writing = <T>(action: Promise<T>) => action.catch((error) => Promise.reject(writeError(error, path)));
  refuseAborted(signal);
  const file = await writing(open(partial, 'w'));
  try {
    await writing(writeAll(file, header));
    let done = 0;
    for (const [index, { name, byteLength }] of tensors.entries()) {
      let written = 0;
      for await (const bytes of bytesOf(index)) {
        refuseAborted(signal);
        written += bytes.length;
        invariant(written <= byteLength, `tensor ${name} has more than its ${byteLength} bytes`);
        await writing(writeAll(file, bytes));
        onProgress?.(done + written, totalBytes);
      }
      invariant(written === byteLength, `tensor ${name} has ${written} bytes instead of ${byteLength}`);
      done += written;
      await writing(writeAll(file, new Uint8Array(paddingTo(alignment, written))));
    }
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

/** All metadata of a GGUF file, to be written to another one with their types. Throws what reading the file throws. */
export function metadataToCopy(path: string): Map<string, GgufValueToWrite> {
  return withFile(path, 'model', (file) => {
    const ranges = [...readGguf(file).metadataRanges];
    return new Map(
      ranges.map(([key, { start, end }]) => {
        const bytes = new Uint8Array(end - start);
        file.read(bytes, start);
        return [key, { type: 'encoded', bytes }];
      }),
    );
  });
}

/** Everything before the first tensor's first byte, which is aligned. */
function encodeHeader(
  metadata: ReadonlyMap<string, GgufValueToWrite>,
  tensors: readonly GgufTensorToWrite[],
  alignment: number,
): Uint8Array {
  const isPower = Number.isInteger(Math.log2(alignment));
  invariant(isPower && alignment >= 8 && alignment <= ggufLimits.alignment, `an alignment of ${alignment} bytes`);
  const pairs = new Map(metadata).set(ALIGNMENT_KEY, { type: 'uint32', value: alignment });
  const header = new ByteWriter();
  header.raw(Buffer.from('GGUF'));
  header.uint32(3);
  header.uint64(tensors.length);
  header.uint64(pairs.size);
  for (const [key, value] of pairs) {
    header.text(key);
    writeValue(header, value);
  }
  let offset = 0; // from the first tensor's first byte
  for (const { name, dtype, shape, byteLength } of tensors) {
    invariant(Buffer.byteLength(name) <= ggufLimits.nameBytes, `tensor name ${name} is too long for GGUF`);
    invariant(shape.length > 0 && shape.length <= ggufLimits.dimensions, `tensor ${name}: ${shape.length} dimensions`);
    header.text(name);
    header.uint32(shape.length);
    for (const size of shape.toReversed()) header.uint64(size);
    header.uint32(dtypes[dtype].id);
    header.uint64(offset);
    offset += byteLength + paddingTo(alignment, byteLength);
  }
  header.raw(new Uint8Array(paddingTo(alignment, header.length)));
  return header.bytes();
}

/** Bytes from `length` to the next multiple of the alignment. */
function paddingTo(alignment: number, length: number): number {
  return (alignment - (length % alignment)) % alignment;
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

function writeError(error: unknown, path: string): EngineError {
  const code = String((error as NodeJS.ErrnoException).code ?? 'unknown error');
  return new EngineError('FILE_UNWRITABLE', { path, reason: reasons[code] ?? code }, { cause: error });
}
