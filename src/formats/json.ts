import { EngineError } from '../base/errors.js';
import { withFile } from './byte-source.js';

/** A value of a JSON file. Objects have no prototype, so a key called `__proto__` or `toString` is only a key. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;

export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Whether a JSON value is an object, not a list. */
export function isObject(value: JsonValue): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Caps on JSON that comes with a model. The largest known index, of 91,000 tensors, has 9 MB and 91,000 values. */
export const jsonLimits = { fileBytes: 1 << 25, depth: 64, values: 1 << 20 } as const;

/**
 * Reads a JSON file whose root is an object. `what` says what the file is for ("configuration").
 *
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE, FORMAT_LIMIT for size, depth and number of values, and FORMAT_INVALID for
 * everything that is not JSON or not UTF-8.
 */
export function readJsonFile(path: string, what: string): JsonObject {
  return withFile(path, what, (file) => {
    if (file.size > jsonLimits.fileBytes) throw overLimit(file.path, 'file size', file.size, jsonLimits.fileBytes);
    const bytes = new Uint8Array(file.size);
    file.read(bytes, 0);
    return parseJsonObject(file.path, bytes);
  });
}

/**
 * Parses UTF-8 JSON (RFC 8259) whose root is an object, as strictly as a header needs it: a key that is twice in one
 * object is an error, because two readers could each believe another one. NaN and Infinity are read as Python's json
 * module writes them into configurations. `path` is for messages.
 */
export function parseJsonObject(path: string, bytes: Uint8Array): JsonObject {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new EngineError(
      'FORMAT_INVALID',
      { path, field: 'text', value: `${bytes.length} bytes`, problem: 'which are not all valid UTF-8' },
      { cause },
    );
  }
  return new Parser(path, text).document();
}

const whitespace = /[ \t\n\r]*/y;
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON strings must not contain them
const plainText = /[^"\\\u0000-\u001f]*/y;
const word = /-?[A-Za-z]+/y;

const words: ReadonlyMap<string, JsonValue> = new Map<string, JsonValue>([
  ['null', null],
  ['true', true],
  ['false', false],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
]);

/** Recursive descent; `jsonLimits.depth` bounds the recursion. */
class Parser {
  /** Next character. */
  private at = 0;
  private numValues = 0;

  constructor(
    private readonly path: string,
    private readonly text: string,
  ) {}

  document(): JsonObject {
    this.skipWhitespace();
    if (this.text[this.at] !== '{') throw this.unexpected('expected an object');
    const root = this.object(1);
    this.skipWhitespace();
    if (this.at < this.text.length) throw this.unexpected('expected the end of the text');
    return root;
  }

  private value(depth: number): JsonValue {
    if (++this.numValues > jsonLimits.values) {
      throw overLimit(this.path, 'number of JSON values', this.numValues, jsonLimits.values);
    }
    if (depth > jsonLimits.depth) throw overLimit(this.path, 'depth of the JSON', depth, jsonLimits.depth);
    const start = this.text[this.at];
    if (start === '{') return this.object(depth);
    if (start === '[') return this.array(depth);
    if (start === '"') return this.string();
    const digits = this.match(number);
    if (digits !== '') return Number(digits);
    const from = this.at;
    const constant = words.get(this.match(word));
    if (constant !== undefined) return constant;
    this.at = from;
    throw this.unexpected('expected a value');
  }

  private object(depth: number): JsonObject {
    const object: Record<string, JsonValue> = Object.create(null);
    this.elements('}', () => {
      const from = this.at;
      if (this.text[from] !== '"') throw this.unexpected('expected a key in quotes');
      const key = this.string();
      if (Object.hasOwn(object, key)) {
        throw this.invalid(`key at character ${from}`, key, 'which the same object has already');
      }
      this.skipWhitespace();
      this.expect(':');
      this.skipWhitespace();
      object[key] = this.value(depth + 1);
    });
    return object;
  }

  private array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.elements(']', () => {
      array.push(this.value(depth + 1));
    });
    return array;
  }

  /** What lies between brackets, separated by commas. */
  private elements(close: string, element: () => void): void {
    this.at++;
    this.skipWhitespace();
    if (this.text[this.at] === close) {
      this.at++;
      return;
    }
    for (;;) {
      this.skipWhitespace();
      element();
      this.skipWhitespace();
      if (this.text[this.at] !== ',') break;
      this.at++;
    }
    this.expect(close);
  }

  private string(): string {
    const from = this.at++;
    const plain = this.match(plainText);
    if (this.text[this.at] !== '\\') {
      this.expect('"');
      return plain;
    }
    // Escapes are rare: find the end, and leave them to the parser of the language.
    while (this.at < this.text.length && this.text[this.at] !== '"') this.at += this.text[this.at] === '\\' ? 2 : 1;
    this.expect('"');
    try {
      return JSON.parse(this.text.slice(from, this.at)) as string;
    } catch {
      throw this.invalid(`string at character ${from}`, this.text.slice(from, this.at), 'expected other escapes');
    }
  }

  private expect(character: string): void {
    if (this.text[this.at] !== character) throw this.unexpected(`expected ${character}`);
    this.at++;
  }

  /** Moves past what the sticky pattern matches here, and returns it. */
  private match(pattern: RegExp): string {
    const from = this.at;
    pattern.lastIndex = from;
    if (!pattern.test(this.text)) return '';
    this.at = pattern.lastIndex;
    return this.text.slice(from, this.at);
  }

  private skipWhitespace(): void {
    // Compact JSON has none, and then this is all there is to do.
    if (this.text.charCodeAt(this.at) <= 0x20) this.match(whitespace);
  }

  private unexpected(problem: string): EngineError {
    return this.invalid(`character ${this.at}`, this.text[this.at], problem);
  }

  private invalid(field: string, value: unknown, problem: string): EngineError {
    return new EngineError('FORMAT_INVALID', { path: this.path, field, value, problem });
  }
}

function overLimit(path: string, field: string, value: number, limit: number): EngineError {
  return new EngineError('FORMAT_LIMIT', { path, field, value, limit });
}
