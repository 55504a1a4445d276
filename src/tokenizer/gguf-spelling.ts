import { bytesToAlphabet } from './byte-alphabet.js';
import { spaceMark } from './word-marks.js';

/** How tokens are spelled here, where a GGUF file spells them otherwise than the model's own tokenizer did. */
export function respelled(spelling: string, model: string): string {
  if (model === 'bert') return wordPieceSpelling(spelling);
  return model === 'rwkv' ? rwkvSpelling(spelling) : spelling;
}

/** llama.cpp's converter marks the beginnings of words, WordPiece their continuations. */
function wordPieceSpelling(spelling: string): string {
  if (spelling.startsWith('[') && spelling.endsWith(']')) return spelling;
  return spelling.startsWith(spaceMark) ? spelling.slice(1) : `##${spelling}`;
}

const escapes: Readonly<Record<string, number>> = { t: 0x09, n: 0x0a, r: 0x0d };

/** Bytes escaped as in a Python literal (\x00, \t, \\), made into GPT-2's alphabet. */
function rwkvSpelling(spelling: string): string {
  const bytes: number[] = [];
  for (const [part, hex, escaped] of spelling.matchAll(/\\x([0-9a-fA-F]{2})|\\([^x])|[^\\]+|\\/gsu)) {
    if (hex !== undefined) bytes.push(Number.parseInt(hex, 16));
    else if (escaped !== undefined && escapes[escaped] !== undefined) bytes.push(escapes[escaped]);
    else bytes.push(...new TextEncoder().encode(escaped ?? part));
  }
  return bytesToAlphabet(bytes);
}
