import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { usesMusl } from '../../src/backend/musl.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

/** The start of a 64-bit ELF file: two program headers, the second for the loader's path, if there is one. */
function elf(interpreter: string | null): string {
  const header = Buffer.alloc(64);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(2, 56);
  const entries = Buffer.alloc(112);
  entries.writeUInt32LE(6, 0);
  entries.writeUInt32LE(interpreter === null ? 1 : 3, 56);
  entries.writeBigUInt64LE(176n, 64);
  const path = Buffer.from(`${interpreter ?? ''}\0`);
  entries.writeBigUInt64LE(BigInt(path.length), 88);
  const file = join(folder, 'program');
  writeFileSync(file, Buffer.concat([header, entries, path]));
  return file;
}

it.each([
  ['/lib/ld-musl-x86_64.so.1', true],
  ['/lib64/ld-linux-x86-64.so.2', false],
  [null, false],
])('a program with the loader %s', (interpreter, expected) => {
  expect(usesMusl(elf(interpreter))).toBe(expected);
});

it('a file that is no program, or only the start of one', () => {
  const file = join(folder, 'text');
  writeFileSync(file, 'no program');
  expect(usesMusl(file)).toBe(false);
  const whole = elf('/lib/ld-musl-x86_64.so.1');
  writeFileSync(file, Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]));
  expect(usesMusl(file)).toBe(false);
  expect(usesMusl(whole)).toBe(true);
});

it.skipIf(process.platform !== 'linux')('this Node, as its own report says (skipped elsewhere than on Linux)', () => {
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  expect(usesMusl()).toBe(header.glibcVersionRuntime === undefined);
});
