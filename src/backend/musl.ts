import { closeSync, openSync, readSync } from 'node:fs';

/**
 * Whether a program is linked with musl (Alpine) rather than glibc: which loader its ELF header names. Addons for one do
 * not work in the other, although the system may load them. Cheaper than process.report, which looks up host names.
 */
export function usesMusl(program = process.execPath): boolean {
  return /\/ld-musl-/.test(interpreterOf(program) ?? '');
}

/** The segment of a program header that holds the path of the loader. */
const PT_INTERP = 3;

/** The loader that a 64-bit little-endian ELF file names, or null. */
function interpreterOf(program: string): string | null {
  const file = openSync(program, 'r');
  const read = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, readSync(file, bytes, 0, length, offset));
  };
  try {
    const header = read(0, 64);
    const isElf64 = header.length === 64 && header.readUInt32BE(0) === 0x7f454c46 && header[4] === 2 && header[5] === 1;
    if (!isElf64) return null;
    const entrySize = header.readUInt16LE(54);
    if (entrySize < 40) return null;
    const entries = read(Number(header.readBigUInt64LE(32)), entrySize * header.readUInt16LE(56));
    for (let entry = 0; entry + 40 <= entries.length; entry += entrySize) {
      if (entries.readUInt32LE(entry) !== PT_INTERP) continue;
      const offset = Number(entries.readBigUInt64LE(entry + 8));
      const length = Number(entries.readBigUInt64LE(entry + 32));
      return read(offset, Math.min(length, 4096)).toString('latin1');
    }
    return null;
  } finally {
    closeSync(file);
  }
}
