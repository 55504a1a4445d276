import type { Budget } from './budget.js';
import type { Value } from './library.js';
import { printed } from './python-text.js';
import {
  boolean,
  float,
  integer,
  isDictionary,
  isFloat,
  isList,
  isNone,
  isNumber,
  isText,
  isUndefined,
  keyOf,
  list,
  numberOf,
  text,
  typeName,
} from './values.js';

/** Python's `==`. */
export function equal(a: Value, b: Value, budget: Budget): boolean {
  budget.spend(1);
  const number = numberOf(a);
  if (number !== null) return number === numberOf(b);
  if (isText(a)) return isText(b) && a.value === b.value;
  if (isNone(a)) return isNone(b);
  if (isUndefined(a)) return isUndefined(b);
  if (isList(a)) {
    return isList(b) && a.value.length === b.value.length && a.value.every((v, i) => equal(v, b.value[i]!, budget));
  }
  if (isDictionary(a)) {
    if (!isDictionary(b) || a.value.size !== b.value.size) return false;
    return [...a.value].every(([key, value]) => b.value.has(key) && equal(value, b.value.get(key)!, budget));
  }
  return a === b;
}

/** Negative, zero or positive. Throws for values that have no order; that of equal ones is zero. */
export function compare(a: Value, b: Value, budget: Budget): number {
  budget.spend(1);
  const x = numberOf(a);
  const y = numberOf(b);
  if (x !== null && y !== null) return x - y;
  if (isText(a) && isText(b)) return a.value < b.value ? -1 : Number(a.value > b.value);
  if (isList(a) && isList(b)) {
    const different = a.value.findIndex((value, i) => i >= b.value.length || !equal(value, b.value[i]!, budget));
    if (different < 0) return a.value.length - b.value.length;
    return different < b.value.length ? compare(a.value[different]!, b.value[different]!, budget) : 1;
  }
  if (equal(a, b, budget)) return 0;
  throw new Error(`${typeName(a)} and ${typeName(b)} have no order`);
}

/** Whether `item` is an element, a key or a part of `container`; null for values that contain nothing. */
export function contains(container: Value, item: Value, budget: Budget): boolean | null {
  if (isUndefined(container)) return false;
  if (isList(container)) return container.value.some((element) => equal(element, item, budget));
  if (isDictionary(container)) {
    const key = keyOf(item);
    return key !== null && container.value.has(key);
  }
  if (!isText(container)) return null;
  if (!isText(item)) return isUndefined(item) ? false : null;
  budget.searchText(container.value.length, item.value.length);
  return container.value.includes(item.value);
}

/** The value of an operation as in Python, or null where the library has it right. */
export function operate(operator: string, left: Value, right: Value, budget: Budget): Value | null {
  switch (operator) {
    case '==':
      return boolean(equal(left, right, budget));
    case '!=':
      return boolean(!equal(left, right, budget));
    case 'in':
    case 'not in': {
      const isIn = contains(right, left, budget);
      return isIn === null ? null : boolean(isIn === (operator === 'in'));
    }
    case '~':
      return concatenated(printed(left, budget), printed(right, budget), budget);
    case '+':
      return sum(left, right, budget);
    case '*':
      return repeated(left, right, budget) ?? repeated(right, left, budget);
    case '%':
      return remainder(left, right);
    case '<':
    case '<=':
    case '>':
    case '>=':
      return isUndefined(left) || isUndefined(right)
        ? null
        : boolean(isOrdered(operator, compare(left, right, budget)));
    default:
      return null;
  }
}

function isOrdered(operator: '<' | '<=' | '>' | '>=', order: number): boolean {
  if (operator === '<') return order < 0;
  if (operator === '<=') return order <= 0;
  return operator === '>' ? order > 0 : order >= 0;
}

function concatenated(left: string, right: string, budget: Budget): Value {
  budget.passText(left.length + right.length);
  return text(left + right);
}

/** Texts and lists; numbers beside a text are written out, which Python refuses and the library does. */
function sum(left: Value, right: Value, budget: Budget): Value | null {
  if (isList(left) && isList(right)) {
    budget.makeList(left.value.length + right.value.length);
    return list([...left.value, ...right.value]);
  }
  const isPart = (value: Value) => isText(value) || numberOf(value) !== null;
  if (!isText(left) && !isText(right)) return null;
  if (isPart(left) && isPart(right)) return concatenated(printed(left, budget), printed(right, budget), budget);
  const other = isText(left) ? right : left;
  throw new Error(`str and ${typeName(other)} cannot be added`);
}

function repeated(what: Value, times: Value, budget: Budget): Value | null {
  if (!isNumber(times)) return null;
  const count = Math.max(0, times.value);
  if (isText(what)) {
    budget.workOnText(what.value.length * count);
    return text(what.value.repeat(count));
  }
  if (!isList(what)) return null;
  budget.makeList(what.value.length * count);
  return list(Array.from({ length: count }, () => what.value).flat());
}

/** The remainder has the sign of the divisor, other than in JavaScript. */
function remainder(left: Value, right: Value): Value | null {
  if (!isNumber(left) || !isNumber(right)) return null;
  const divisor = right.value;
  if (divisor === 0) throw new Error('division by zero');
  const rest = left.value % divisor;
  const value = rest !== 0 && rest < 0 !== divisor < 0 ? rest + divisor : rest;
  return isFloat(left) || isFloat(right) ? float(value) : integer(value);
}
