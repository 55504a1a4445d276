import { invariant } from '../base/errors.js';
import type { DType } from '../tensor/dtype.js';
import type { WriteBytes } from './whole-file.js';

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: DType;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** Bytes stored. */
  readonly byteLength: number;
}

/** The bytes of one tensor, in pieces of any size that are never held longer than it takes to write them. */
export type TensorBytes = (index: number) => Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface TensorWriteOptions {
  /** Gives up with ABORTED. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes of tensors written so far, and of all tensors. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Writes tensors in order, each padded to the alignment (1: to nothing). */
export async function writeTensors(
  tensors: readonly TensorToWrite[],
  bytesOf: TensorBytes,
  write: WriteBytes,
  alignment: number,
  onProgress: TensorWriteOptions['onProgress'],
): Promise<void> {
  const totalBytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  let done = 0;
  for (const [index, { name, byteLength }] of tensors.entries()) {
    let written = 0;
    for await (const bytes of bytesOf(index)) {
      written += bytes.length;
      invariant(written <= byteLength, `tensor ${name} has more than its ${byteLength} bytes`);
      await write(bytes);
      onProgress?.(done + written, totalBytes);
    }
    invariant(written === byteLength, `tensor ${name} has ${written} bytes instead of ${byteLength}`);
    done += written;
    await write(new Uint8Array(paddingTo(alignment, written)));
  }
}

/** Bytes from `length` to the next multiple of the alignment. */
export function paddingTo(alignment: number, length: number): number {
  return (alignment - (length % alignment)) % alignment;
}
