import type { TokenTexts } from './token-text.js';
import { decodeLossy, incompleteTail } from './utf8.js';

export interface StreamState {
  readonly texts: TokenTexts;
  /** Tokens that add no text. */
  readonly isHidden: (id: number) => boolean;
  /** Whether text precedes what will be pushed. */
  readonly continues: boolean;
}

/**
 * Text of tokens as they arrive. What push() returned, put together, is what decoding all tokens at once gives; it
 * never ends inside a character. The work for a token does not depend on those before it.
 */
export class StreamDecoder {
  readonly #texts: TokenTexts;
  readonly #isHidden: (id: number) => boolean;
  /** Bytes of a character that is not complete yet. */
  #pending: Uint8Array = nothing;
  #isFirst: boolean;
  /** How many more characters may be stripped from the start of the text. */
  #strippable: number;
  #spaceFollows = false;

  constructor({ texts, isHidden, continues }: StreamState) {
    this.#texts = texts;
    this.#isHidden = isHidden;
    this.#isFirst = !continues;
    this.#strippable = continues ? 0 : (texts.rules.stripStart?.count ?? 0);
  }

  /**
   * The text that more tokens complete. An id without a token adds nothing: models pad their vocabularies.
   *
   * @param ids [any number of token ids]
   */
  push(ids: ArrayLike<number>): string {
    let text = '';
    for (let i = 0; i < ids.length; i++) text += this.#pushOne(ids[i]!);
    return text;
  }

  /** The rest: U+FFFD if bytes of a character are left over, else nothing. The decoder can then be used again. */
  flush(): string {
    const rest = this.#pending.length > 0 ? this.#strip('\ufffd') : '';
    this.#pending = nothing;
    return rest;
  }

  #pushOne(id: number): string {
    if (this.#isHidden(id)) return '';
    const piece = this.#texts.piece(id, this.#isFirst);
    const space = this.#spaceFollows ? ' ' : '';
    this.#isFirst = false;
    this.#spaceFollows = this.#texts.endsWord(id);
    if (typeof piece === 'string' && this.#pending.length === 0) return this.#strip(space + piece);
    if (piece.length === 0) return '';
    return this.#strip(space + this.#complete(typeof piece === 'string' ? utf8.encode(piece) : piece));
  }

  /** Text of the bytes so far, less a last character that is not complete. */
  #complete(bytes: Uint8Array): string {
    const all = new Uint8Array(this.#pending.length + bytes.length);
    all.set(this.#pending);
    all.set(bytes, this.#pending.length);
    const end = all.length - incompleteTail(all);
    this.#pending = all.subarray(end);
    return decodeLossy(all.subarray(0, end));
  }

  #strip(text: string): string {
    if (this.#strippable === 0 || text === '') return text;
    const { character } = this.#texts.rules.stripStart!;
    let start = 0;
    while (this.#strippable > 0 && text.startsWith(character, start)) {
      start += character.length;
      this.#strippable--;
    }
    if (start < text.length) this.#strippable = 0;
    return text.slice(start);
  }
}

const nothing = new Uint8Array(0);
const utf8 = new TextEncoder();
