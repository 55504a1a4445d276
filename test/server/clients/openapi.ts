import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import type { Json } from '../harness.js';

interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly minItems?: number;
  readonly $ref?: string;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
}

interface Operation {
  readonly 'x-oaiMeta': { readonly examples: Json };
}

/** OpenAI's description of its API: schemas by name, and examples of requests. */
export class OpenApi {
  readonly #document: {
    readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
    readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  };
  readonly #ajv = new Ajv2020({ strict: false, validateSchema: false, allErrors: true });

  constructor(path: string) {
    this.#document = JSON.parse(readFileSync(path, 'utf8'), (_, value) => withNull(value));
    addFormats.default(this.#ajv);
    this.#ajv.addFormat('unixtime', { type: 'number', validate: Number.isInteger });
    this.#ajv.addSchema(this.#document, 'openapi.json');
  }

  /** What is wrong with a value; empty if it is as the schema has it. */
  faults(schema: string, value: unknown): string[] {
    const validate = this.#ajv.compile({ $ref: `openapi.json#/components/schemas/${schema}` });
    if (validate(value)) return [];
    return validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`);
  }

  /** Paths of fields that the schema does not name; items of lists are []. */
  unknownFields(schema: string, value: unknown): string[] {
    const found = new Set<string>();
    this.#walk(this.schema(schema), value, '', found);
    return [...found].sort();
  }

  schema(name: string): Schema {
    return this.#document.components.schemas[name]!;
  }

  /** All properties of a schema that is put together from others. */
  properties(schema: Schema): Readonly<Record<string, Schema>> {
    return Object.assign({}, ...this.#parts(schema).map(({ properties }) => properties ?? {}));
  }

  /** The smallest value that a schema allows: its default, its first enumerated value, or one made of required fields. */
  sample(schema: Schema): unknown {
    if (schema.$ref !== undefined) return this.sample(this.#resolve(schema));
    const first = schema.anyOf?.[0] ?? schema.oneOf?.[0];
    if (schema.default !== undefined && schema.default !== null) return schema.default;
    if (schema.enum !== undefined) return schema.enum[0];
    if (first !== undefined) return this.sample(first);
    if (schema.type === 'array') return Array.from({ length: schema.minItems ?? 1 }, () => this.sample(schema.items!));
    if (schema.type === 'integer' || schema.type === 'number') return schema.minimum ?? 1;
    if (schema.type === 'boolean') return true;
    if (schema.type === 'string') return 'text';
    const properties = this.properties(schema);
    const required = this.#parts(schema).flatMap((part) => part.required ?? []);
    return Object.fromEntries(required.map((name) => [name, this.sample(properties[name]!)]));
  }

  /** Bodies of a route's example requests, as its curl commands have them. */
  examples(path: string, method: string): { readonly title: string; readonly body: Json }[] {
    const { examples } = this.#document.paths[path]![method]!['x-oaiMeta'];
    return [examples].flat().map(({ title = path, request }) => {
      const [, body] = /-d '(.*)'/s.exec(request.curl)!;
      return { title, body: JSON.parse(body!) };
    });
  }

  #resolve({ $ref }: Schema): Schema {
    return this.schema($ref!.split('/').at(-1)!);
  }

  /** A schema and all that it consists of or may be. */
  #parts(schema: Schema): Schema[] {
    const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
    const own = schema.$ref === undefined ? [schema] : this.#parts(this.#resolve(schema));
    return [...own, ...inner.flatMap((part) => this.#parts(part))];
  }

  #walk(schema: Schema, value: unknown, path: string, found: Set<string>): void {
    if (typeof value !== 'object' || value === null) return;
    const parts = this.#parts(schema);
    if (Array.isArray(value)) {
      const items = parts.find((part) => part.items !== undefined)?.items ?? {};
      for (const item of value) this.#walk(items, item, `${path}[]`, found);
      return;
    }
    const isMap = parts.some(({ additionalProperties: more }) => typeof more === 'object' || more === true);
    const properties = this.properties(schema);
    for (const [name, field] of Object.entries(value)) {
      if (properties[name] !== undefined) this.#walk(properties[name], field, `${path}.${name}`, found);
      else if (!isMap) found.add(`${path}.${name}`);
    }
  }
}

/** OpenAPI 3.0's `nullable`, which this document of version 3.1 still has, beside references too, as JSON Schema has it. */
function withNull(value: Json): Json {
  if (value?.nullable !== true) return value;
  const { nullable, ...schema } = value;
  return { anyOf: [schema, { type: 'null' }] };
}
