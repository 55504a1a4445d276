import { EngineError } from '../base/errors.js';
import type { AddedTokens } from './added-tokens.js';
import type { ChatPrompt } from './content-marks.js';
import { CachedModel, type TokenModel } from './model.js';
import type { Frame } from './post-processor.js';
import type { PreTokenizer } from './pre-tokenizer.js';
import { StreamDecoder } from './stream-decoder.js';
import type { TokenTexts } from './token-text.js';
import { decodeLossy, toWellFormed } from './utf8.js';
import type { Vocabulary } from './vocabulary.js';
import { finish, type Work } from './work.js';

/** What tokenizerFromJson and tokenizerFromGguf put together. */
export interface TokenizerParts {
  readonly vocabulary: Vocabulary;
  readonly added: AddedTokens;
  readonly preTokenize: PreTokenizer;
  readonly model: TokenModel;
  readonly frame: Frame;
  /** Put before a chat whose template does not begin with them. */
  readonly chatPrefixIds?: readonly number[];
  readonly texts: TokenTexts;
  /** Tokens that only the program may write, and that are hidden when text is shown. */
  readonly specialIds: ReadonlySet<number>;
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
}

export interface EncodeOptions {
  /** Put the tokens around the text that the model expects there (beginning of text, separators). Default true. */
  readonly addSpecialTokens?: boolean;
  /**
   * Read special tokens that are spelled out in the text. Default false: what a user writes stays text and cannot end
   * a turn or begin a system prompt. Added tokens that are no special tokens (runs of spaces) are always read.
   */
  readonly parseSpecial?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out. Default true. */
  readonly skipSpecialTokens?: boolean;
  /**
   * Ids before these, such as the prompt's. What they are matters only at the very beginning of a text, where
   * SentencePiece puts a space that is not shown: decode(a) + decode(b, { after: a }) is decode(a followed by b).
   */
  readonly after?: ArrayLike<number>;
}

/**
 * Text to token ids and back, as the model was trained with.
 *
 * Encoding is that of Hugging Face's tokenizers library for tokenizer.json and of llama.cpp for GGUF files; where the
 * two differ on the same vocabulary the reason is in the tests.
 */
export class Tokenizer {
  readonly #parts: TokenizerParts;
  readonly #model: CachedModel;

  constructor(parts: TokenizerParts) {
    this.#parts = parts;
    this.#model = new CachedModel(parts.model);
  }

  /** One more than the largest token id; the model's embedding table may have more rows. */
  get vocabSize(): number {
    return this.#parts.vocabulary.size;
  }

  /** The token that begins a text, or null. */
  get bosId(): number | null {
    return this.#parts.bosId;
  }

  /** All the tokens that end generation, ascending. */
  get eosIds(): readonly number[] {
    return this.#parts.eosIds;
  }

  /** Special tokens as they are spelled in text. */
  get specialTexts(): readonly string[] {
    return this.#parts.added.specialTexts;
  }

  /** Token ids of a text. Lone surrogates are read as U+FFFD. Throws OPTION_INVALID if it is no text. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    return finish(this.encodeWork(text, options));
  }

  /**
   * The same, as work in pieces, for texts that would hold the event loop for too long.
   *
   * @param maxTokens when there are more it ends, and gives only those
   */
  *encodeWork(text: string, options: EncodeOptions = {}, maxTokens = Number.POSITIVE_INFINITY): Work<Int32Array> {
    if (typeof text !== 'string') {
      throw new EngineError('OPTION_INVALID', { option: 'text', value: text, expected: 'a string' });
    }
    const { frame } = this.#parts;
    const { addSpecialTokens = true, parseSpecial = false } = options;
    const ids: number[] = addSpecialTokens ? [...frame.prefixIds] : [];
    yield* this.#encode(text, parseSpecial, null, ids, maxTokens);
    if (addSpecialTokens) ids.push(...frame.suffixIds);
    yield;
    return new Int32Array(ids);
  }

  /**
   * Token ids of a rendered chat: special tokens that the template wrote are read, those that a message spells out are
   * text. Nothing is added around it, as in transformers; for GGUF files the beginning of text is, where the vocabulary
   * wants it and the template has not written it, as in llama.cpp.
   */
  encodeChat(prompt: ChatPrompt): Int32Array {
    return finish(this.encodeChatWork(prompt));
  }

  /** The same, as work in pieces; when there are more than `maxTokens` it ends, and gives only those. */
  *encodeChatWork(prompt: ChatPrompt, maxTokens = Number.POSITIVE_INFINITY): Work<Int32Array> {
    const ids: number[] = [];
    yield* this.#encode(prompt.text, true, prompt.content, ids, maxTokens);
    const { chatPrefixIds = [] } = this.#parts;
    if (chatPrefixIds.every((id, i) => ids[i] === id)) return new Int32Array(ids);
    const prefixed = new Int32Array(chatPrefixIds.length + ids.length);
    prefixed.set(chatPrefixIds);
    prefixed.set(ids, chatPrefixIds.length);
    return prefixed;
  }

  *#encode(
    text: string,
    parseSpecial: boolean,
    content: Uint8Array | null,
    ids: number[],
    maxTokens: number,
  ): Work<void> {
    const { added, preTokenize } = this.#parts;
    for (const section of added.split(toWellFormed(text), parseSpecial, content)) {
      if (section === null) {
        yield;
      } else if ('id' in section) {
        ids.push(section.id);
      } else {
        for (const { texts } of preTokenize({ texts: [section.text], fromStart: section.start === 0 })) {
          for (const word of texts) {
            const work = word === '' ? null : this.#model.encode(word, ids);
            if (work !== null) yield* work;
          }
          if (ids.length > maxTokens) return;
          yield;
        }
      }
    }
  }

  /** The text of token ids. Throws TOKEN_ID_INVALID for an id outside the vocabulary. */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    for (let index = 0; index < ids.length; index++) this.#check(ids[index]!, index);
    const decoder = this.stream({ after: [], ...options });
    return decoder.push(ids) + decoder.flush();
  }

  /**
   * Decodes token by token. Without `after`, what is pushed continues a text, so that a space it begins with is kept;
   * with it the same holds if `after` has any text.
   */
  stream(options: DecodeOptions = {}): StreamDecoder {
    const { texts, specialIds } = this.#parts;
    const { skipSpecialTokens = true, after } = options;
    const isHidden = skipSpecialTokens ? (id: number) => specialIds.has(id) : () => false;
    const continues = after === undefined || !Array.prototype.every.call(after, isHidden);
    return new StreamDecoder({ texts, isHidden, continues });
  }

  /** The token as the vocabulary spells it ("▁the", "Ġthe", "<0x0A>"). Throws TOKEN_ID_INVALID. */
  tokenText(id: number): string {
    this.#check(id, 0);
    return this.#parts.vocabulary.text(id) ?? '';
  }

  /** The id of a token as the vocabulary spells it, or null. */
  idOf(token: string): number | null {
    return this.#parts.vocabulary.id(token);
  }

  /** The text a token adds inside of a text; bytes that are no text by themselves as U+FFFD. Throws TOKEN_ID_INVALID. */
  pieceText(id: number): string {
    const piece = this.#piece(id);
    return typeof piece === 'string' ? piece : decodeLossy(piece);
  }

  /** The bytes a token adds inside of a text. Throws TOKEN_ID_INVALID. */
  tokenBytes(id: number): Uint8Array {
    const piece = this.#piece(id);
    return typeof piece === 'string' ? new TextEncoder().encode(piece) : piece.slice();
  }

  /** Whether this is a control token: hidden when text is shown, not read from text unless asked for. */
  isSpecial(id: number): boolean {
    return this.#parts.specialIds.has(id);
  }

  #piece(id: number): string | Uint8Array {
    this.#check(id, 0);
    return this.#parts.texts.piece(id);
  }

  #check(id: number, index: number): void {
    const { vocabSize } = this;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new EngineError('TOKEN_ID_INVALID', { id, index, vocabSize });
    }
  }
}
