import type { Complain } from './problem.js';

/** Objects and lists around a value, far above what any tokenizer needs; whoever reads them may recurse. */
const MAX_DEPTH = 100;

/** A value inside a tokenizer file, with where it lies: whatever is wrong is reported by its place. */
export class JsonNode {
  constructor(
    readonly value: unknown,
    /** Keys from the top of the file, for messages ("model.unk_token"). */
    readonly where: string,
    readonly complain: Complain,
    private readonly depth = 0,
  ) {
    if (depth > MAX_DEPTH) throw complain(`values are nested more than ${MAX_DEPTH} deep`);
  }

  /** Absent and null are the same thing, as in every writer of these files. */
  get isAbsent(): boolean {
    return this.value === undefined || this.value === null;
  }

  /** A member of an object; an absent one if there is no such member. Throws if this is no object. */
  member(key: string): JsonNode {
    const object = this.object();
    return this.inner(Object.hasOwn(object, key) ? object[key] : undefined, join(this.where, key));
  }

  object(): Readonly<Record<string, unknown>> {
    const { value } = this;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.wrong('an object');
    return value as Record<string, unknown>;
  }

  list(maxLength: number): readonly unknown[] {
    if (!Array.isArray(this.value)) throw this.wrong('a list');
    if (this.value.length > maxLength) {
      throw this.complain(`${this.where} has ${this.value.length} entries; at most ${maxLength}`);
    }
    return this.value;
  }

  items(maxLength: number): JsonNode[] {
    return this.list(maxLength).map((value, i) => this.inner(value, `${this.where}[${i}]`));
  }

  private inner(value: unknown, where: string): JsonNode {
    return new JsonNode(value, where, this.complain, this.depth + 1);
  }

  text(): string {
    if (typeof this.value !== 'string') throw this.wrong('text');
    return this.value;
  }

  optionalText(): string | null {
    return this.isAbsent ? null : this.text();
  }

  flag(absent: boolean): boolean {
    if (this.isAbsent) return absent;
    if (typeof this.value !== 'boolean') throw this.wrong('true or false');
    return this.value;
  }

  /** A whole number from 0 to `max`. */
  count(max: number): number {
    const { value } = this;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max) {
      throw this.wrong(`a whole number from 0 to ${max}`);
    }
    return value;
  }

  optionalCount(max: number): number | null {
    return this.isAbsent ? null : this.count(max);
  }

  wrong(expected: string): Error {
    const { value } = this;
    const shown = typeof value === 'object' && value !== null ? (Array.isArray(value) ? 'a list' : 'an object') : value;
    return this.complain(`${this.where} is ${String(shown).slice(0, 60)}; expected ${expected}`);
  }
}

function join(where: string, key: string): string {
  return where === '' ? key : `${where}.${key}`;
}
