import type { TObject, TSchema } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { EngineError } from '../base/errors.js';

/** What a walk along a fault needs of a schema. */
interface SchemaNode {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, TSchema>>;
  readonly patternProperties?: Readonly<Record<string, TSchema>>;
  readonly required?: readonly string[];
  readonly items?: TSchema;
  readonly maxItems?: number;
  readonly expected?: string;
}

/**
 * Checks the bodies of one route. Fields that are null at the top count as missing, as in OpenAI's API; fields that the
 * schema does not know are left alone.
 */
export class BodyValidator {
  /** Of the schema, and of those of its parts that a fault was looked for in. */
  readonly #compiled = new Map<TSchema, Validator>();

  constructor(readonly schema: TObject) {}

  /** The first fault becomes OPTION_INVALID, named by its path: messages[0].role. */
  check(given: unknown): { value: unknown } | { error: EngineError } {
    const body = withoutNulls(given);
    return this.#passes(this.schema, body) ? { value: body } : { error: this.#fault(body) };
  }

  #passes(schema: TSchema, value: unknown): boolean {
    let validator = this.#compiled.get(schema);
    if (validator === undefined) {
      validator = Compile(schema);
      this.#compiled.set(schema, validator);
    }
    return validator.Check(value);
  }

  /**
   * Follows the first fault down to the smallest value that is wrong. The library's own list of errors goes on after the
   * first, and its checks without compilation are slow: a million wrong items took six and two seconds.
   */
  #fault(body: unknown): EngineError {
    let option = '';
    let node: SchemaNode = this.schema;
    let value = body;
    for (;;) {
      const fault = this.#faultIn(node, value);
      if (fault === null) break;
      const { key } = fault;
      option += /^\d+$/.test(key) ? `[${key}]` : option === '' ? key : `.${key}`;
      value = (value as Record<string, unknown>)[key];
      node = fault.node;
    }
    const expected = node.expected ?? 'a JSON object';
    return new EngineError('OPTION_INVALID', { option: option === '' ? 'body' : option, value, expected });
  }

  /** The first field or item that is wrong; null if the value itself is: its type, its length, none of several types. */
  #faultIn(node: SchemaNode, value: unknown): { key: string; node: SchemaNode } | null {
    const { items, maxItems = Number.POSITIVE_INFINITY } = node;
    if (items !== undefined) {
      if (!Array.isArray(value) || value.length > maxItems) return null;
      const index = value.findIndex((item) => !this.#passes(items, item));
      return index < 0 ? null : { key: String(index), node: items };
    }
    if (node.type !== 'object' || !isObject(value)) return null;
    const { properties = {}, required = [] } = node;
    const missing = required.find((name) => !Object.hasOwn(value, name));
    if (missing !== undefined) return { key: missing, node: properties[missing]! };
    const [anyField] = Object.values(node.patternProperties ?? {});
    for (const key of Object.keys(value)) {
      const field = Object.hasOwn(properties, key) ? properties[key] : anyField;
      if (field !== undefined && !this.#passes(field, value[key])) return { key, node: field };
    }
    return null;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function withoutNulls(body: unknown): unknown {
  if (!isObject(body)) return body;
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}
