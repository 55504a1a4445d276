/**
 * The printable alphabet that GPT-2's byte-level BPE spells bytes with (Radford et al. 2019, encoder.py): bytes that
 * Latin-1 prints stand for themselves, the others for the characters from U+0100 on, in order.
 */
const characterOfByte: readonly string[] = alphabet(); // [256]

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
  return /^[!-~]*$/.test(text) ? text : bytesToAlphabet(utf8.encode(text));
}

/** Each byte as its character of the alphabet. */
export function bytesToAlphabet(bytes: Iterable<number>): string {
  let spelled = '';
  for (const byte of bytes) spelled += characterOfByte[byte];
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
