import { type TSchema, Type } from 'typebox';

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
