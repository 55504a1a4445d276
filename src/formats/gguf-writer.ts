import { truncateSync, writeFileSync } from 'node:fs';
import { EngineError, invariant } from '../base/errors.js';
import { dtypes } from '../tensor/dtype.js';
import { withFile } from './byte-source.js';
import { ggufLimits, readGguf } from './gguf.js';
import { ByteWriter, type GgufValueToWrite, writeValue } from './gguf-encode.js';
import { paddingTo, type TensorToWrite, type TensorWriteOptions, writeTensors } from './tensor-writer.js';
import { writeWholeFile } from './whole-file.js';

export type GgufTensorToWrite = TensorToWrite;

export interface GgufWriteOptions extends TensorWriteOptions {
  /** Bytes to whose multiples tensors are aligned, a power of two; default 64, a cache line. */
  readonly alignment?: number | undefined;
}

const DEFAULT_ALIGNMENT = 64;
const ALIGNMENT_KEY = 'general.alignment';

/**
 * Writes a GGUF file, version 3. `bytesOf` gives the bytes of one tensor, in pieces of any size that are never held
 * longer than it takes to write them; tensors are asked for in order. The value of general.alignment is the option's,
 * whatever `metadata` says.
 *
 * The file appears when it is complete (`writeWholeFile`). That `path` is no file that is being read is for the caller to
 * check. Throws FILE_UNWRITABLE (a full disk, permissions), ABORTED, and what `bytesOf` throws.
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
  await writeWholeFile(path, signal, async (write) => {
    await write(header);
    await writeTensors(tensors, bytesOf, write, alignment, onProgress);
  });
}

/**
 * The same file with zeros for all tensors, which take no room on most disks: for whoever reads the header alone. Throws
 * FILE_UNWRITABLE.
 */
export function writeGgufHeader(
  path: string,
  metadata: ReadonlyMap<string, GgufValueToWrite>,
  tensors: readonly GgufTensorToWrite[],
): void {
  const header = encodeHeader(metadata, tensors, DEFAULT_ALIGNMENT);
  const sizes = tensors.map(({ byteLength }) => byteLength + paddingTo(DEFAULT_ALIGNMENT, byteLength));
  try {
    writeFileSync(path, header);
    truncateSync(
      path,
      sizes.reduce((sum, size) => sum + size, header.length),
    );
  } catch (cause) {
    throw new EngineError('FILE_UNWRITABLE', { path, reason: (cause as Error).message }, { cause });
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
