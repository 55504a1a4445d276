export interface SafetensorsInput {
  readonly name: string;
  /** As the format spells it: F32, F16, BF16, I64, … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** As stored. */
  readonly bytes: Uint8Array;
}

/** A complete safetensors file. */
export function writeSafetensors(
  tensors: readonly SafetensorsInput[],
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const text = JSON.stringify(header);
  // Writers align the data by spaces after the JSON.
  return rawSafetensors(text.padEnd(Math.ceil(text.length / 8) * 8), Buffer.concat(tensors.map(({ bytes }) => bytes)));
}

/** A file with just this header text and data; `length` in place of the header's true length. */
export function rawSafetensors(header: string | Uint8Array, data: Uint8Array | number, length?: bigint): Uint8Array {
  const text = typeof header === 'string' ? Buffer.from(header) : header;
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(text.length));
  return new Uint8Array(Buffer.concat([prefix, text, typeof data === 'number' ? new Uint8Array(data) : data]));
}
