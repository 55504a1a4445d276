import { describe, expect, test } from 'vitest';
import { Fields } from '../../src/formats/fields.js';
import { parseJsonObject } from '../../src/formats/json.js';
import { expectEngineError } from './engine-error.js';

const json = (text: string) => new Fields('/m/config.json', parseJsonObject('/m/config.json', Buffer.from(text)));
const gguf = (entries: readonly (readonly [string, unknown])[]) => new Fields('/m/a.gguf', new Map(entries));

describe('fields of a configuration', () => {
  test('values of the right type come back', () => {
    const fields = json(
      '{"n":3,"x":0.5,"s":"text","b":false,"list":[1,2],"f":[1,0.5],"w":["a"],"t":[true],"o":{"k":7}}',
    );
    expect(fields.uint('n')).toBe(3);
    expect(fields.float('x')).toBe(0.5);
    expect(fields.float('n')).toBe(3);
    expect(fields.string('s')).toBe('text');
    expect(fields.boolean('b')).toBe(false);
    expect(fields.uints('list')).toEqual([1, 2]);
    expect(fields.floats('f')).toEqual([1, 0.5]);
    expect(fields.strings('w')).toEqual(['a']);
    expect(fields.booleans('t')).toEqual([true]);
    expect(fields.child('o').uint('k')).toBe(7);
    expect(fields.oneOf('s', ['other', 'text'])).toBe('text');
    expect(fields.isList('list')).toBe(true);
    expect(fields.isList('n')).toBe(false);
    expect(fields.keys()).toContain('list');
  });

  test('typed arrays of GGUF are lists', () => {
    const fields = gguf([['heads', Int32Array.of(8, 4)]]);
    expect(fields.isList('heads')).toBe(true);
    expect(fields.uints('heads', { length: 2 })).toEqual([8, 4]);
    expect(fields.floats('heads')).toEqual([8, 4]);
  });

  test('absent and null are the same, and optional', () => {
    const fields = json('{"nothing":null}');
    for (const key of ['nothing', 'absent']) {
      expect(fields.has(key)).toBe(false);
      expect(fields.optionalUint(key)).toBeNull();
      expect(fields.optionalFloat(key)).toBeNull();
      expect(fields.optionalString(key)).toBeNull();
      expect(fields.optionalBoolean(key)).toBeNull();
      expect(fields.optionalOneOf(key, ['a'])).toBeNull();
      expect(fields.optionalUints(key)).toBeNull();
      expect(fields.optionalFloats(key)).toBeNull();
      expect(fields.optionalStrings(key)).toBeNull();
      expect(fields.optionalBooleans(key)).toBeNull();
      expect(fields.optionalChild(key)).toBeNull();
    }
  });

  test('names of built-in properties are absent unless the file has them', () => {
    expect(new Fields('x', {}).raw('toString')).toBeNull();
    expect(new Fields('x', {}).raw('__proto__')).toBeNull();
    expect(json('{"__proto__":1}').uint('__proto__')).toBe(1);
  });

  const mistakes: readonly (readonly [string, (fields: Fields) => unknown, ...string[]])[] = [
    ['a missing value', (f) => f.uint('absent'), 'absent is missing'],
    ['zero where a size is needed', (f) => f.uint('zero', { min: 1 }), 'zero is 0', 'from 1 to 2147483647'],
    ['a negative count', (f) => f.uint('negative'), 'negative is -1', 'from 0'],
    ['a fraction', (f) => f.uint('half'), 'half is 0.5', 'whole number'],
    ['a number beyond the range', (f) => f.uint('huge'), 'huge is 1e+300'],
    ['a number as text', (f) => f.uint('text'), 'text is "32"'],
    ['text of many pages', (f) => f.uint('long'), `long is "${'x'.repeat(80)}…"`],
    ['true for a number', (f) => f.optionalUint('yes'), 'yes is true'],
    ['infinity', (f) => f.float('infinite'), 'infinite is Infinity', 'finite'],
    ['a float below its range', (f) => f.float('half', { min: 1, max: 2 }), 'half is 0.5', 'at least 1 up to 2'],
    ['a number for a string', (f) => f.string('zero'), 'zero is 0', 'expected a string'],
    ['a number for a boolean', (f) => f.boolean('zero'), 'expected true or false'],
    ['an unknown word', (f) => f.oneOf('text', ['silu', 'gelu']), 'text is "32"', 'one of silu, gelu'],
    ['a number for a list', (f) => f.uints('zero'), 'expected a list'],
    ['a list for a number', (f) => f.uint('list'), 'list is a list of 3'],
    ['a bad element', (f) => f.uints('list'), 'list[1] is "a"'],
    ['null within a list', (f) => f.strings('nulls'), 'nulls[0] is null', 'expected a string'],
    ['a list of another length', (f) => f.uints('list', { length: 2 }), 'expected 2 elements'],
    ['a list that is too long', (f) => f.uints('list', { maxLength: 2 }), 'at most 2 elements'],
    ['a list for an object', (f) => f.child('list'), 'expected an object'],
    ['an object with a toString of its own', (f) => f.uint('object'), 'object is an object'],
    ['a value within an object', (f) => f.child('object').uint('toString'), 'object.toString is "x"'],
  ];
  const wrong =
    `{"zero":0,"negative":-1,"half":0.5,"huge":1e300,"text":"32","long":"${'x'.repeat(1e5)}","yes":true,` +
    '"infinite":Infinity,"list":[1,"a",3],"nulls":[null],"object":{"toString":"x"}}';
  for (const [name, read, ...message] of mistakes) {
    test(`${name} is an error that names file, key and value`, () =>
      expectEngineError(() => read(json(wrong)), 'CONFIG_INVALID', '/m/config.json', ...message));
  }

  test('a bigint is out of every range', () =>
    expectEngineError(() => gguf([['n', 2n ** 60n]]).uint('n'), 'CONFIG_INVALID', 'n is 1152921504606846976'));
});
