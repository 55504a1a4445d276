import type { Vocabulary } from './vocabulary.js';
import { finish, type Work } from './work.js';

/** Turns a pre-token (a word, with what normalisation and pre-tokenisation made of it) into token ids. */
export interface TokenModel {
  /** Appends the ids of `word`, which is well-formed and not empty, to `out`. A word may be a whole book. */
  encode(word: string, out: number[]): Work<void>;
}

/** Words remembered at most, and the longest of them: text repeats its short words. */
const CACHE_WORDS = 1 << 14;
const CACHE_WORD_LENGTH = 48;
/** From here on V8 makes a part of a text by keeping the text. */
const SLICE_LENGTH = 13;

/** Remembers the ids of words: in ordinary text nine words of ten have been there before. */
export class CachedModel {
  readonly #model: TokenModel;
  readonly #words = new Map<string, readonly number[]>();

  constructor(model: TokenModel) {
    this.#model = model;
  }

  /** Appends the ids of a short word to `out`; what a long one takes comes back as work. */
  encode(word: string, out: number[]): Work<void> | null {
    if (word.length > CACHE_WORD_LENGTH) return this.#model.encode(word, out);
    let ids = this.#words.get(word);
    if (ids === undefined) {
      const fresh: number[] = [];
      finish(this.#model.encode(word, fresh));
      ids = fresh;
      if (this.#words.size >= CACHE_WORDS) this.#words.clear();
      this.#words.set(word.length < SLICE_LENGTH ? word : copied(word), ids);
    }
    for (const id of ids) out.push(id);
    return null;
  }
}

/** The same text in memory of its own. */
function copied(text: string): string {
  return Buffer.from(text, 'utf16le').toString('utf16le');
}

/** What becomes of text that no token covers. */
export interface UnknownPolicy {
  /** [256] ids of the tokens that stand for single bytes (<0x00> to <0xFF>), -1 where there is none; or null. */
  readonly byteIds: Int32Array | null;
  readonly unknownId: number | null;
  /** Whether one unknown token stands for a run of unknown characters. */
  readonly fuseUnknown: boolean;
}

const utf8 = new TextEncoder();

/** Ids of the bytes of `text`, if every one of them has a token; else null. */
export function byteFallback(text: string, byteIds: Int32Array | null): number[] | null {
  if (byteIds === null) return null;
  const code = text.charCodeAt(0);
  if (text.length === 1 && code < 0x80) return byteIds[code]! < 0 ? null : [byteIds[code]!];
  const ids = Array.from(utf8.encode(text), (byte) => byteIds[byte]!);
  return ids.includes(-1) ? null : ids;
}

/** [256] ids of the tokens <0x00> to <0xFF>, -1 where there is none. */
export function byteIdsOf(vocabulary: Vocabulary): Int32Array {
  return Int32Array.from(
    { length: 256 },
    (_, byte) => vocabulary.id(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`) ?? -1,
  );
}

/** The byte that a spelling stands for, or null if it is no byte token. */
export function byteOfToken(text: string): number | null {
  return text.length === 6 && /^<0x[0-9A-Fa-f]{2}>$/.test(text) ? Number.parseInt(text.slice(3, 5), 16) : null;
}
