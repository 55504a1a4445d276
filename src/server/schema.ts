import { type Static, type TObject, type TSchema, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { EngineError } from '../base/errors.js';

// Every schema carries `expected`, a phrase for messages: "temperature is 9; expected a number from 0 to 2".

export const number = (minimum: number, maximum: number) =>
  Type.Number({ minimum, maximum, expected: `a number from ${minimum} to ${maximum}` });

export const integer = (minimum: number, maximum: number) =>
  Type.Integer({ minimum, maximum, expected: `a whole number from ${minimum} to ${maximum}` });

export const flag = () => Type.Boolean({ expected: 'true or false' });

export const text = (maxLength: number) =>
  Type.String({ maxLength, expected: `a string of at most ${maxLength} characters` });

/** Text that only the size of the body limits. */
export const anyText = () => Type.String({ expected: 'a string' });

export const anyObject = () => Type.Object({}, { expected: 'an object' });

export const list = <S extends TSchema>(items: S, minItems: number, maxItems: number, what: string) =>
  Type.Array(items, { minItems, maxItems, expected: `a list of ${minItems} to ${maxItems} ${what}` });

/** A field of several types; `expected` names them all. */
export const either = <S extends TSchema[]>(expected: string, ...types: [...S]) => Type.Union(types, { expected });

export const object = <P extends Record<string, TSchema>>(expected: string, properties: P) =>
  Type.Object(properties, { expected });

/** Largest token id that a request may name; whether the model has it is the engine's business. */
export const tokenId = () => integer(0, 2 ** 31 - 1);

/**
 * A check of request bodies. Fields that are null at the top count as missing, as in OpenAI's API; fields that the
 * schema does not know are left alone. The first fault becomes OPTION_INVALID, named by its path: messages[0].role.
 */
export function bodyValidator<S extends TObject>(
  schema: S,
): (body: unknown) => { value: Static<S> } | { error: EngineError } {
  const validator = Compile(schema);
  return (given) => {
    const body = withoutNulls(given);
    if (validator.Check(body)) return { value: body as Static<S> };
    return { error: firstFault(schema, body, validator.Errors(body)[0]!) };
  };
}

function withoutNulls(body: unknown): unknown {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return body;
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

interface Fault {
  readonly keyword: string;
  readonly instancePath: string;
  readonly params: object;
}

function firstFault(schema: TSchema, body: unknown, fault: Fault): EngineError {
  const path = fault.instancePath.split('/').slice(1);
  if (fault.keyword === 'required' && 'requiredProperties' in fault.params) {
    path.push((fault.params.requiredProperties as string[])[0]!);
  }
  let option = '';
  let value = body;
  let expected = 'a JSON object';
  let node: Partial<{ properties: Record<string, TSchema>; items: TSchema; expected: string }> | undefined = schema;
  for (const segment of path) {
    option += /^\d+$/.test(segment) ? `[${segment}]` : option === '' ? segment : `.${segment}`;
    value = (value as Record<string, unknown> | undefined)?.[segment];
    node = node?.properties?.[segment] ?? node?.items;
    expected = node?.expected ?? expected; // inside of a field of several types: what the field expects
  }
  return new EngineError('OPTION_INVALID', { option: option === '' ? 'body' : option, value, expected });
}
