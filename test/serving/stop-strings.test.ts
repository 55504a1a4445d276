import { describe, expect, it } from 'vitest';
import { resolveStopStrings, StopStrings } from '../../src/serving/stop-strings.js';

/** Text shown when `pieces` arrive one after another. */
function shown(stops: string[], pieces: string[]): string {
  const matcher = new StopStrings(stops);
  let text = '';
  for (const piece of pieces) {
    const result = matcher.push(piece);
    text += result.text;
    if (result.stopped) return text;
  }
  return text + matcher.flush();
}

describe('stop strings', () => {
  it('cut the text before the first one, wherever the pieces are cut', () => {
    for (let at = 0; at <= 9; at++) {
      const text = 'abcENDdef';
      expect(shown(['END'], [text.slice(0, at), text.slice(at)])).toBe('abc');
    }
    expect(shown(['END'], [...'abcENDdef'])).toBe('abc');
  });

  it('give back what only looked like one', () => {
    expect(shown(['END'], ['abEN', 'Xcd', 'EN'])).toBe('abENXcdEN');
    expect(shown(['aab'], [...'aaab'])).toBe('a');
  });

  it('take the earliest of several', () => {
    expect(shown(['yy', 'x'], ['aaxyy'])).toBe('aa');
    expect(shown(['abc', 'b'], [...'xabc'])).toBe('xa');
  });

  it('never show a beginning of one before it is decided', () => {
    const matcher = new StopStrings(['stop']);
    expect(matcher.push('a st').text).toBe('a ');
    expect(matcher.push('o').text).toBe('');
    expect(matcher.push('p').stopped).toBe(true);
  });

  it('are refused when empty, too long or too many', () => {
    expect(() => resolveStopStrings('')).toThrow('stop is ""');
    expect(() => resolveStopStrings(['x'.repeat(2000)])).toThrow('1 to 1024 characters');
    expect(() => resolveStopStrings(Array.from({ length: 65 }, () => 'x'))).toThrow('at most 64');
    expect(resolveStopStrings(undefined)).toEqual([]);
  });
});
