/**
 * The printable alphabet that GPT-2's byte-level BPE spells bytes with (Radford et al. 2019, encoder.py): bytes that
 * Latin-1 prints stand for themselves, the others for the characters from U+0100 on, in order.
 */
const characterOfByte: readonly string[] = alphabet(); // [256]

const codeOfByte: readonly number[] = characterOfByte.map((character) => character.charCodeAt(0)); // [256]

/** [512] byte of each character of the alphabet by its code, -1 elsewhere. */
const byteOfCode: Int16Array = codes();

function alphabet(): string[] {
  let next = 0x100;
  const isPrinted = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrinted(byte) ? byte : next++));
}

function codes(): Int16Array {
  const bytes = new Int16Array(512).fill(-1);
  for (let byte = 0; byte < 256; byte++) bytes[characterOfByte[byte]!.charCodeAt(0)] = byte;
  return bytes;
}

const utf8 = new TextEncoder();

/** The UTF-8 bytes of well-formed text, each as its character of the alphabet. */
export function toByteAlphabet(text: string): string {
  // Most words are a space and letters.
  const start = text.charCodeAt(0) === 0x20 ? 1 : 0;
  for (let i = start; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code <= 0x20 || code > 0x7e) return bytesToAlphabet(utf8.encode(text));
  }
  return start === 1 ? characterOfByte[0x20]! + text.slice(1) : text;
}

/** Characters put together at once: each is an argument of a function. */
const CHUNK = 4096;

/** Each byte as its character of the alphabet. */
export function bytesToAlphabet(bytes: ArrayLike<number>): string {
  let spelled = '';
  for (let start = 0; start < bytes.length; start += CHUNK) {
    const codes: number[] = [];
    const end = Math.min(bytes.length, start + CHUNK);
    for (let i = start; i < end; i++) codes.push(codeOfByte[bytes[i]!]!);
    spelled += String.fromCharCode(...codes); // one by one they would be a rope, slow to read later
  }
  return spelled;
}

/** The bytes that text of the alphabet stands for, or null if it has other characters. */
export function fromByteAlphabet(text: string): Uint8Array | null {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const byte = byteOfCode[text.charCodeAt(i)] ?? -1;
    if (byte < 0) return null;
    bytes[i] = byte;
  }
  return bytes;
}
