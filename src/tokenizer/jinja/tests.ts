import type { Budget } from './budget.js';
import type { Value } from './library.js';
import { compare, contains, equal } from './operators.js';
import {
  isBoolean,
  isDictionary,
  isFloat,
  isInteger,
  isList,
  isNone,
  isNumber,
  isText,
  isUndefined,
  typeName,
} from './values.js';

type Test = (value: Value, args: readonly Value[], budget: Budget) => boolean;

const whole = (value: Value): number => {
  if (!isInteger(value)) throw new Error(`${typeName(value)} is no whole number`);
  return value.value as number;
};
const ordered =
  (holds: (order: number) => boolean): Test =>
  (value, [other], budget) =>
    holds(compare(value, given(other), budget));
const equals: Test = (value, [other], budget) => equal(value, given(other), budget);

function given(value: Value | undefined): Value {
  if (value === undefined) throw new Error('a test needs an argument');
  return value;
}

/** Jinja's tests: `x is defined`, `list | select('odd')`. */
const tests: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['defined', (value) => !isUndefined(value)],
  ['undefined', isUndefined],
  ['none', isNone],
  ['boolean', isBoolean],
  ['true', (value) => isBoolean(value) && value.value],
  ['false', (value) => isBoolean(value) && !value.value],
  ['string', isText],
  ['number', (value) => isNumber(value) || isBoolean(value)],
  ['integer', isInteger],
  ['float', isFloat],
  ['mapping', isDictionary],
  ['sequence', (value) => isList(value) || isDictionary(value) || isText(value) || isUndefined(value)],
  ['iterable', (value) => isList(value) || isDictionary(value) || isText(value) || isUndefined(value)],
  ['callable', (value) => typeName(value) === 'function'],
  ['odd', (value) => whole(value) % 2 !== 0],
  ['even', (value) => whole(value) % 2 === 0],
  ['divisibleby', (value, [by]) => whole(value) % whole(given(by)) === 0],
  ['lower', (value) => isText(value) && /\p{L}/u.test(value.value) && value.value === value.value.toLowerCase()],
  ['upper', (value) => isText(value) && /\p{L}/u.test(value.value) && value.value === value.value.toUpperCase()],
  ['in', (value, [container], budget) => contains(given(container), value, budget) ?? false],
  ['equalto', equals],
  ['eq', equals],
  ['==', equals],
  ['ne', (value, args, budget) => !equals(value, args, budget)],
  ['!=', (value, args, budget) => !equals(value, args, budget)],
  ['lt', ordered((order) => order < 0)],
  ['le', ordered((order) => order <= 0)],
  ['gt', ordered((order) => order > 0)],
  ['ge', ordered((order) => order >= 0)],
]);

export function testNamed(name: string): Test {
  const test = tests.get(name);
  if (test === undefined) throw new Error(`there is no test ${name}`);
  return test;
}
