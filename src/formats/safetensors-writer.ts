import { invariant } from '../base/errors.js';
import { type DType, isPacked } from '../tensor/dtype.js';
import { LINE } from '../tensor/packed.js';
import { PACKED_KEY } from './safetensors-packed.js';
import {
  paddingTo,
  type TensorBytes,
  type TensorToWrite,
  type TensorWriteOptions,
  writeTensors,
} from './tensor-writer.js';
import { writeWholeFile } from './whole-file.js';

/** What the format calls the types it has. */
const formatTypes: Readonly<Partial<Record<DType, string>>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };

/**
 * Writes a safetensors file. Matrices in the engine's own types become lists of bytes that the metadata name
 * (safetensors-packed.ts); they come first, so that they are aligned although the format allows no gaps. `bytesOf` gives
 * the bytes of a tensor by its number in `tensors`.
 *
 * The file appears when it is complete (`writeWholeFile`). Throws FILE_UNWRITABLE, ABORTED, and what `bytesOf` throws.
 */
export async function writeSafetensors(
  path: string,
  metadata: Readonly<Record<string, string>>,
  tensors: readonly TensorToWrite[],
  bytesOf: TensorBytes,
  options: TensorWriteOptions = {},
): Promise<void> {
  // Sizes of packed matrices are multiples of a line, those of float types of 4 or of 2 bytes.
  const rank = ({ dtype }: TensorToWrite) => (isPacked(dtype) ? 0 : dtype === 'f32' ? 1 : 2);
  const order = tensors.map((_, index) => index).sort((a, b) => rank(tensors[a]!) - rank(tensors[b]!) || a - b);
  const sorted = order.map((index) => tensors[index]!);
  const header = encodeHeader(metadata, sorted);
  await writeWholeFile(path, options.signal, async (write) => {
    await write(header);
    await writeTensors(sorted, (index) => bytesOf(order[index]!), write, 1, options.onProgress);
  });
}

/** Length and JSON, padded so that the first tensor starts at a multiple of a line. */
function encodeHeader(metadata: Readonly<Record<string, string>>, tensors: readonly TensorToWrite[]): Uint8Array {
  const packed = Object.fromEntries(
    tensors.filter(({ dtype }) => isPacked(dtype)).map(({ name, dtype, shape }) => [name, { dtype, shape }]),
  );
  const json: Record<string, unknown> = { __metadata__: { ...metadata, [PACKED_KEY]: JSON.stringify(packed) } };
  let offset = 0;
  for (const { name, dtype, shape, byteLength } of tensors) {
    const type = isPacked(dtype) ? 'U8' : formatTypes[dtype];
    invariant(type !== undefined, `tensor ${name}: safetensors has no type ${dtype}`);
    const data_offsets = [offset, offset + byteLength];
    json[name] = { dtype: type, shape: isPacked(dtype) ? [byteLength] : shape, data_offsets };
    offset += byteLength;
  }
  const text = Buffer.from(JSON.stringify(json));
  const prefix = Buffer.alloc(8);
  const padding = paddingTo(LINE, prefix.length + text.length);
  prefix.writeBigUInt64LE(BigInt(text.length + padding));
  return Buffer.concat([prefix, text, Buffer.alloc(padding, ' ')]);
}
