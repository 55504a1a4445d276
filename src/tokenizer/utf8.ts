const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const strictDecoder = new TextDecoder('utf-8', { ignoreBOM: true, fatal: true });

/** Well-formed text: lone surrogates, which no tokenizer and no UTF-8 can express, become U+FFFD. */
export function toWellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** Bytes as text; sequences that are not UTF-8 become U+FFFD, one for each maximal part (Unicode 3.9, table 3-8). */
export function decodeLossy(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Bytes as text, or null if they are not UTF-8 from the first to the last. */
export function decodeStrict(bytes: Uint8Array): string | null {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return null;
  }
}

/** How many bytes at the end begin a character that further bytes could complete; 0 to 3. */
export function incompleteTail(bytes: Uint8Array): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const lead = bytes[bytes.length - length]!;
    if ((lead & 0xc0) === 0x80) continue; // in the middle of a character
    return length < lengthByLead(lead) && mayFollow(lead, length > 1 ? bytes[bytes.length - length + 1]! : null)
      ? length
      : 0;
  }
  return 0;
}

/** Bytes of a character that begins with `lead`, or 0 if none does. */
function lengthByLead(lead: number): number {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/** Some second bytes would spell surrogates, numbers past U+10FFFF, or what fewer bytes can say. */
function mayFollow(lead: number, second: number | null): boolean {
  if (second === null) return true;
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second <= 0x9f;
  if (lead === 0xf0) return second >= 0x90;
  return lead !== 0xf4 || second <= 0x8f;
}
