import { bertNormalizer, lowercase } from './bert.js';
import { toByteAlphabet } from './byte-alphabet.js';
import { Charsmap } from './charsmap.js';
import type { JsonNode } from './json-node.js';
import { anywhere, atOnce, beforeStarters, inSequence, partwise, replacing, type SlowChange } from './partwise.js';
import { compilePattern, isWhiteSpace, literalPattern } from './pattern.js';

/** Changes text before it is cut into words. */
export type Normalizer = SlowChange;

export const unchanged: Normalizer = atOnce((text) => text);

const MAX_STEPS = 64;

/** The normalizer that tokenizer.json describes. Throws TOKENIZER_INVALID for one that is unknown or malformed. */
export function normalizerFromJson(node: JsonNode): Normalizer {
  if (node.isAbsent) return unchanged;
  const type = node.member('type').text();
  switch (type) {
    case 'Sequence':
      return inSequence(node.member('normalizers').items(MAX_STEPS).map(normalizerFromJson));
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return partwise((text) => text.normalize(type), beforeStarters);
    case 'Lowercase':
      return partwise(lowercase, anywhere);
    case 'StripAccents':
      return partwise((text) => text.replace(/\p{M}/gu, ''), anywhere);
    case 'Strip':
      return strip(node.member('strip_left').flag(true), node.member('strip_right').flag(true));
    case 'Replace':
      return replace(node);
    case 'Prepend': {
      const prefix = node.member('prepend').text();
      return atOnce((text) => (text === '' ? '' : prefix + text));
    }
    case 'Precompiled': {
      const table = node.member('precompiled_charsmap');
      if (table.isAbsent) return unchanged;
      const charsmap = new Charsmap(Buffer.from(table.text(), 'base64'), node.complain);
      return (text) => charsmap.replaceGraphemes(text);
    }
    case 'BertNormalizer': {
      const lower = node.member('lowercase').flag(true);
      return bertNormalizer({
        cleanText: node.member('clean_text').flag(true),
        separateHan: node.member('handle_chinese_chars').flag(true),
        stripAccents: node.member('strip_accents').flag(lower),
        lowercase: lower,
      });
    }
    case 'Nmt':
      return partwise(nmt, anywhere);
    case 'ByteLevel':
      return partwise(toByteAlphabet, anywhere);
    default:
      throw node.complain(`normalizer ${type} is not supported`);
  }
}

function strip(left: boolean, right: boolean): Normalizer {
  return atOnce((text) => {
    let start = 0;
    let end = text.length;
    while (left && start < end && isWhiteSpace(text.charCodeAt(start))) start++;
    while (right && end > start && isWhiteSpace(text.charCodeAt(end - 1))) end--;
    return text.slice(start, end);
  });
}

function replace(node: JsonNode): Normalizer {
  const literal = node.member('pattern').member('String').optionalText();
  const content = node.member('content').text();
  if (literal?.length === 1 && literal < '\ud800')
    return partwise((text) => text.replaceAll(literal, () => content), anywhere);
  return replacing(patternOf(node.member('pattern')), content);
}

/** { "String": text } or { "Regex": pattern } */
export function patternOf(node: JsonNode): RegExp {
  const text = node.member('String').optionalText();
  if (text !== null) return literalPattern(text);
  return compilePattern(node.member('Regex').text(), node.complain);
}

/** Neural machine translation's cleaning of SentencePiece: control characters go, exotic spaces become plain. */
function nmt(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is the point
      .replace(/[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/g, '')
      .replace(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g, ' ')
  );
}
