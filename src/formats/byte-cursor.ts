import { EngineError } from '../base/errors.js';
import type { ByteSource } from './byte-source.js';

/** Bytes read ahead; a header is read in about size / WINDOW system calls. */
const WINDOW = 1 << 20;

/**
 * Reads little-endian values one after the other. Every length is compared with the rest of the source, and with the
 * limit, before memory is allocated for it.
 *
 * Set `field` (and `element` inside of lists) to what is being read: errors name it.
 */
export class ByteCursor {
  field = 'header';
  /** Index within a list, or -1. */
  element = -1;
  private window: Buffer = Buffer.alloc(0);
  /** Position in the source of the window's first byte. */
  private base = 0;
  /** Next byte, from the start of the window. */
  private next = 0;

  /** @param limit the first byte that must not be read: most bytes a header may have */
  constructor(
    private readonly source: ByteSource,
    private readonly limit: number,
  ) {}

  /** Next byte, from the start of the source. */
  get position(): number {
    return this.base + this.next;
  }

  /** Bytes from here to the end of the source. */
  get remaining(): number {
    return this.source.size - this.position;
  }

  uint8(): number {
    const at = this.take(1);
    return this.window.readUInt8(at);
  }

  int8(): number {
    const at = this.take(1);
    return this.window.readInt8(at);
  }

  uint16(): number {
    const at = this.take(2);
    return this.window.readUInt16LE(at);
  }

  int16(): number {
    const at = this.take(2);
    return this.window.readInt16LE(at);
  }

  uint32(): number {
    const at = this.take(4);
    return this.window.readUInt32LE(at);
  }

  int32(): number {
    const at = this.take(4);
    return this.window.readInt32LE(at);
  }

  float32(): number {
    const at = this.take(4);
    return this.window.readFloatLE(at);
  }

  float64(): number {
    const at = this.take(8);
    return this.window.readDoubleLE(at);
  }

  /** A number where it is exact, else a bigint. */
  uint64(): number | bigint {
    const at = this.take(8);
    return exact(this.window.readBigUInt64LE(at));
  }

  int64(): number | bigint {
    const at = this.take(8);
    return exact(this.window.readBigInt64LE(at));
  }

  /** An unsigned 64-bit count or length of at most `limit`; `what` is appended to the field's name. */
  count(what: string, limit: number): number {
    const at = this.take(8);
    const low = this.window.readUInt32LE(at);
    const high = this.window.readUInt32LE(at + 4);
    // High words below 2^21 make safe integers; others are only ever shown.
    const value = high < 2 ** 21 ? high * 2 ** 32 + low : this.window.readBigUInt64LE(at);
    if (value > limit) throw this.overLimit(what, value, limit);
    return Number(value);
  }

  /** A string: its length in bytes as 64 bits, then UTF-8. Bytes that are not UTF-8 become U+FFFD. */
  text(limit: number): string {
    const length = this.count('length', limit);
    const at = this.take(length);
    return this.window.toString('utf8', at, at + length);
  }

  /** A copy of the next bytes, at the start of a buffer of its own, so that typed arrays can be laid over it. */
  bytes(length: number): ArrayBuffer {
    const at = this.take(length);
    const copy = new Uint8Array(length);
    copy.set(this.window.subarray(at, at + length));
    return copy.buffer;
  }

  /** The error for a value that does not belong here; the caller throws it. */
  invalid(what: string, value: unknown, problem: string): EngineError {
    return new EngineError('FORMAT_INVALID', { path: this.source.path, field: this.name(what), value, problem });
  }

  overLimit(what: string, value: unknown, limit: number): EngineError {
    return new EngineError('FORMAT_LIMIT', { path: this.source.path, field: this.name(what), value, limit });
  }

  private name(what: string): string {
    const element = this.element < 0 ? '' : `[${this.element}]`;
    return `${this.field}${element}${what === '' ? '' : ` ${what}`}`;
  }

  /** Moves past the next bytes and returns where they start in the window, which it may have replaced. */
  private take(length: number): number {
    if (this.next + length > this.window.length) this.fill(length);
    const at = this.next;
    this.next += length;
    return at;
  }

  private fill(length: number): void {
    const { position, source } = this;
    if (length > this.remaining) {
      const needs = `it needs ${length} bytes from byte ${position} on`;
      throw this.invalid('', undefined, `${needs}, but the file ends at byte ${source.size}`);
    }
    if (position + length > this.limit) throw this.overLimit('end', position + length, this.limit);
    const window = Buffer.allocUnsafeSlow(Math.min(Math.max(length, WINDOW), this.remaining));
    source.read(window, position);
    this.window = window;
    this.base = position;
    this.next = 0;
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
