import type { Complain } from './problem.js';
import type { Work } from './work.js';

/**
 * The compiled normalisation table of SentencePiece: a double-array trie (darts-clone) over the UTF-8 bytes to replace,
 * whose values are offsets into NUL-terminated replacements. Layout: uint32 size of the trie in bytes, the trie as
 * little-endian uint32 units, the replacements.
 */
export class Charsmap {
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;
  /** By UTF-16 unit: what plain characters become by themselves, as they are met. */
  readonly #plain = new Map<number, string>();
  /** Made when it is needed: its first one takes the runtime 20 ms. */
  #segmenter: Intl.Segmenter | undefined;

  /** Throws TOKENIZER_INVALID if the table does not hold what its size says. */
  constructor(bytes: Uint8Array, complain: Complain) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const trieBytes = bytes.length < 4 ? Number.POSITIVE_INFINITY : view.getUint32(0, true);
    if (trieBytes % 4 !== 0 || 4 + trieBytes > bytes.length) {
      throw complain(`the normalisation table of ${bytes.length} bytes cannot hold a trie of ${trieBytes}`);
    }
    this.#units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + i * 4, true));
    this.#replacements = bytes.subarray(4 + trieBytes);
  }

  /** Replaces the longest known prefix again and again, as SentencePiece does; unknown characters stay. */
  *replaceLongest(text: string): Work<string> {
    const bytes = utf8.encode(text);
    let normalized = '';
    let copied = 0;
    for (let start = 0, pause = PAUSE; start < bytes.length; ) {
      const match = this.#match(bytes, start, bytes.length, 'longest');
      if (match === null) {
        start += characterLength(bytes[start]!);
      } else {
        normalized += decoder.decode(bytes.subarray(copied, start)) + match.replacement;
        start = match.end;
        copied = start;
      }
      if (start < pause) continue;
      pause = start + PAUSE;
      yield;
    }
    return copied === 0 ? text : normalized + decoder.decode(bytes.subarray(copied));
  }

  /**
   * What the tokenizers library makes of the same table: grapheme by grapheme, a short one replaced as a whole by what
   * its shortest known prefix becomes, else character by character.
   */
  *replaceGraphemes(text: string): Work<string> {
    let normalized = '';
    let parts: string[] = [];
    for (const part of this.#replaced(text)) {
      parts.push(part);
      if (parts.length < PAUSE) continue;
      normalized += parts.join('');
      parts = [];
      yield;
    }
    return normalized + parts.join('');
  }

  *#replaced(text: string): Generator<string> {
    let done = 0;
    for (const { 0: joined, index } of text.matchAll(mayJoin)) {
      for (; done < index; done++) yield this.#replacePlain(text.charCodeAt(done));
      // Looking for graphemes is slow.
      this.#segmenter ??= new Intl.Segmenter('und', { granularity: 'grapheme' });
      for (const grapheme of graphemesOf(joined, this.#segmenter)) yield this.#replaceGrapheme(grapheme);
      done = index + joined.length;
    }
    for (; done < text.length; done++) yield this.#replacePlain(text.charCodeAt(done));
  }

  #replacePlain(unit: number): string {
    let replaced = this.#plain.get(unit);
    if (replaced === undefined) {
      replaced = this.#replaceGrapheme(String.fromCharCode(unit));
      this.#plain.set(unit, replaced);
    }
    return replaced;
  }

  #replaceGrapheme(grapheme: string): string {
    const whole = utf8.encode(grapheme);
    const match = whole.length < 6 ? this.#match(whole, 0, whole.length, 'shortest') : null;
    if (match !== null) return match.replacement;
    let normalized = '';
    for (const character of grapheme) {
      const bytes = utf8.encode(character);
      normalized += this.#match(bytes, 0, bytes.length, 'shortest')?.replacement ?? character;
    }
    return normalized;
  }

  /** Walks the trie along bytes[start, limit). */
  #match(bytes: Uint8Array, start: number, limit: number, which: 'longest' | 'shortest'): Match | null {
    let node = offsetOf(this.#unit(0));
    let found: number | null = null;
    let end = start;
    for (let i = start; i < limit; i++) {
      const byte = bytes[i]!;
      if (byte === 0) break; // NUL ends the strings of the table
      node ^= byte;
      const unit = this.#unit(node);
      if ((unit & 0x800000ff) >>> 0 !== byte) break;
      node ^= offsetOf(unit);
      if (((unit >>> 8) & 1) === 0) continue;
      found = this.#unit(node) & 0x7fffffff;
      end = i + 1;
      if (which === 'shortest') break;
    }
    return found === null ? null : { end, replacement: this.#replacement(found) };
  }

  /** Units outside belong to damaged tables; zero ends every walk. */
  #unit(index: number): number {
    return this.#units[index] ?? 0;
  }

  #replacement(offset: number): string {
    const end = this.#replacements.indexOf(0, offset);
    return decoder.decode(this.#replacements.subarray(offset, end < 0 ? undefined : end));
  }
}

interface Match {
  readonly end: number;
  readonly replacement: string;
}

const utf8 = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Characters between two pauses. */
const PAUSE = 512;

/** Where characters may be one grapheme: all but runs of printable ASCII and Chinese characters, less their ends. */
const mayJoin = /[\t\n -~\u4e00-\u9fff]?(?:[^\t\n -~\u4e00-\u9fff]+[\t\n -~\u4e00-\u9fff]?)+/g;

/** Code units looked at together: the time Intl.Segmenter takes grows with the square of the length. */
const WINDOW = 1024;

function* graphemesOf(text: string, segmenter: Intl.Segmenter): Generator<string> {
  let window = WINDOW;
  for (let start = 0; start < text.length; ) {
    const part = text.slice(start, start + window);
    const found = Array.from(segmenter.segment(part), ({ segment }) => segment);
    if (start + part.length < text.length) {
      if (found.length === 1) {
        window *= 2;
        continue;
      }
      found.pop(); // it may go on behind the window
    }
    yield* found;
    for (const grapheme of found) start += grapheme.length;
    window = WINDOW;
  }
}

/** Distance from a trie node to its children: 21 bits, in steps of 256 where bit 9 is set. */
function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

/** Bytes of the UTF-8 character with this first byte. */
function characterLength(lead: number): number {
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}
