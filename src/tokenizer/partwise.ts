import type { Work } from './work.js';

/** Code units that are changed at once; a longer text is changed part by part. */
export const PART = 4096;

/** A change of a text. */
export type Change = (text: string) => string;
/** The same, as work in pieces. */
export type SlowChange = (text: string) => Work<string>;

/** Between any two characters of well-formed text. */
export const anywhere = /[^\udc00-\udfff]/g;

/**
 * Before characters that no normalization form joins with what is before them, alone or decomposed: ASCII, letters of
 * the alphabets up to Thaana, kana, Chinese characters, Hangul syllables, emoji. Not all there are, but there are some
 * in any text.
 */
export const beforeStarters =
  /[\0-\x7f\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0386-\u03ff\u0400-\u0482\u048a-\u0556\u05d0-\u05ea\u0620-\u064a\u0904-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\ud83c-\ud83e]/g;

/**
 * A change that may be made part by part, cut before what `boundary` matches: one code unit, with the flag g.
 */
export function partwise(change: Change, boundary: RegExp): SlowChange {
  return function* (text) {
    if (text.length <= PART) return change(text);
    let changed = '';
    for (let start = 0; start < text.length; ) {
      const end = endOfPart(text, start, boundary);
      changed += change(text.slice(start, end));
      start = end;
      yield;
    }
    return changed;
  };
}

/**
 * Text without any boundary for too long is cut all the same: ICU's time to put combining marks in order grows with the
 * square of their number, and Unicode's stream-safe text format has no more than 30 in a row (UAX #15, section 13).
 */
function endOfPart(text: string, start: number, boundary: RegExp): number {
  boundary.lastIndex = start + PART;
  const end = boundary.exec(text)?.index ?? text.length;
  if (end - start <= PART * 2) return end;
  anywhere.lastIndex = start + PART;
  return anywhere.exec(text)?.index ?? text.length;
}

/** Puts `content` in place of every match. */
export function replacing(pattern: RegExp, content: string): SlowChange {
  return function* (text) {
    if (text.length <= PART) return text.replace(pattern, () => content);
    let changed = '';
    let parts: string[] = [];
    let copied = 0;
    for (const { 0: match, index } of text.matchAll(pattern)) {
      parts.push(text.slice(copied, index), content);
      copied = index + match.length;
      if (parts.length < PART / 4) continue;
      changed += parts.join('');
      parts = [];
      yield;
    }
    return changed + parts.join('') + text.slice(copied);
  };
}

/** One change after the other. */
export function inSequence(changes: readonly SlowChange[]): SlowChange {
  return function* (text) {
    let changed = text;
    for (const change of changes) changed = yield* change(changed);
    return changed;
  };
}

/** A change that takes no time to speak of, however long the text. */
export function atOnce(change: Change): SlowChange {
  // biome-ignore lint/correctness/useYield: all of the work is one piece
  return function* (text) {
    return change(text);
  };
}
