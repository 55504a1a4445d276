import { describe, expect, test } from 'vitest';
import { parseJsonObject } from '../../src/formats/json.js';
import { expectEngineError } from './engine-error.js';

const parse = (text: string | Uint8Array) =>
  parseJsonObject('/models/config.json', typeof text === 'string' ? Buffer.from(text) : text);

describe('JSON of a model', () => {
  test.each([
    '{}',
    ' {\n\t"a" : 1 , "b":[ ] , "c":{ } }\r\n',
    '{"numbers":[0,-0,1,-1,1.5,1e3,1E-3,-2.5e+10,12345678901234567890,1e400]}',
    '{"words":[true,false,null]}',
    String.raw`{"escapes":"\"\\\/\b\f\n\r\t\u0041\ud83e\udd8a","\u006bey\n":"plain"}`,
    '{"text":"Größe 🦊  "}',
    '{"nested":{"a":[[[{"b":[]}]]]}}',
    '{"":"empty key"}',
  ])('%s is read as JSON.parse reads it', (text) => {
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  test('NaN and Infinity are read as Python writes them', () => {
    expect(parse('{"limit":[0.0,Infinity],"low":-Infinity,"none":NaN}')).toEqual({
      limit: [0, Number.POSITIVE_INFINITY],
      low: Number.NEGATIVE_INFINITY,
      none: Number.NaN,
    });
  });

  test('a byte order mark is skipped', () => {
    expect(parse('\ufeff{"a":1}')).toEqual({ a: 1 });
  });

  test('names of built-in properties are only keys', () => {
    const object = parse('{"__proto__":{"polluted":1},"constructor":2,"toString":3}');
    expect(Object.keys(object)).toEqual(['__proto__', 'constructor', 'toString']);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(Object.getPrototypeOf(object)).toBeNull();
  });

  test.each([
    ['empty text', '', 'character 0 is missing'],
    ['a root that is a list', '[]', 'character 0', 'expected an object'],
    ['text after the end', '{} x', 'character 3', 'expected the end'],
    ['a key without quotes', '{a:1}', 'character 1', 'expected a key'],
    ['a trailing comma', '{"a":1,}', 'character 7', 'expected a key'],
    ['a trailing comma in a list', '{"a":[1,]}', 'character 8', 'expected a value'],
    ['a missing colon', '{"a" 1}', 'character 5', 'expected :'],
    ['a missing value', '{"a":}', 'character 5', 'expected a value'],
    ['a number with a leading zero', '{"a":012}', 'character 6', 'expected }'],
    ['a number with a leading point', '{"a":.5}', 'character 5', 'expected a value'],
    ['an unknown word', '{"a":True}', 'character 5', 'expected a value'],
    ['an unknown escape', String.raw`{"a":"\x41"}`, 'string at character 5'],
    ['half of an escape', String.raw`{"a":"\u00"}`, 'string at character 5'],
    ['a line break in a string', '{"a":"b\nc"}', 'character 7', 'expected "'],
    ['a line break after an escape', '{"a":"\\n\n"}', 'string at character 5'],
    ['an open string', '{"a":"b', 'character 7 is missing', 'expected "'],
    ['an open string that ends in a backslash', '{"a":"b\\', 'is missing', 'expected "'],
    ['a key twice', '{"a":1,"b":2,"a":3}', 'key at character 13 is "a"', 'already'],
    ['a key twice, once escaped', String.raw`{"a":1,"\u0061":3}`, 'key at character 7 is "a"'],
    ['__proto__ twice', '{"__proto__":1,"__proto__":2}', 'key at character 15'],
    ['a comment', '{/* no */}', 'character 1'],
  ])('%s is refused', (_name, text, ...message) =>
    expectEngineError(() => parse(text), 'FORMAT_INVALID', '/models/config.json', ...message),
  );

  test('text that is not UTF-8 is refused', () =>
    expectEngineError(() => parse(Uint8Array.of(0x7b, 0xff, 0x7d)), 'FORMAT_INVALID', 'not all valid UTF-8'));

  test('depth is limited', async () => {
    expect(() => parse(`${'{"a":'.repeat(63)}{}${'}'.repeat(63)}`)).not.toThrow();
    await expectEngineError(() => parse('{"a":'.repeat(1_000_000)), 'FORMAT_LIMIT', 'depth of the JSON is 65');
    await expectEngineError(() => parse(`{"a":${'['.repeat(1_000_000)}`), 'FORMAT_LIMIT', 'depth of the JSON is 65');
  });

  test('the number of values is limited', () =>
    expectEngineError(() => parse(`{"a":[${'0,'.repeat(1 << 20)}0]}`), 'FORMAT_LIMIT', 'number of JSON values'));

  test('JSON cut off at any character is refused', async () => {
    const text = String.raw`{"a": [1.5, {"b\n": "c\u0041"}, null], "d": -1e5}`;
    for (let length = 0; length < text.length; length++) {
      await expectEngineError(() => parse(text.slice(0, length)), 'FORMAT_INVALID');
    }
  });
});
