import type { JsonNode } from './json-node.js';
import { patternOf } from './normalizer.js';
import type { DecodingRules, SpellingStep } from './token-text.js';

const MAX_STEPS = 64;

/** The steps gathered so far, while the decoders of tokenizer.json are read in order. */
interface Draft {
  steps: SpellingStep[];
  bytes: DecodingRules['bytes'];
  stripStart?: { character: string; count: number };
  wordSuffix?: string;
  /** Whether tokens have become one text, to which a later step applies as a whole. */
  fused: boolean;
}

/**
 * How tokens become text, from the decoder that tokenizer.json describes. Decoders there work on whole lists of
 * tokens; all the ones in use can be told token by token, which is what makes streaming cheap.
 *
 * Throws TOKENIZER_INVALID for a decoder that is unknown, malformed, or needs the whole text.
 */
export function decodingRulesFromJson(node: JsonNode): DecodingRules {
  const draft: Draft = { steps: [], bytes: 'none', fused: false };
  if (node.isAbsent) draft.steps.push((spelling, first) => (first ? spelling : ` ${spelling}`));
  else addDecoder(node, draft);
  const { fused: _, ...rules } = draft;
  return rules;
}

function addDecoder(node: JsonNode, draft: Draft): void {
  const type = node.member('type').text();
  switch (type) {
    case 'Sequence':
      for (const decoder of node.member('decoders').items(MAX_STEPS)) addDecoder(decoder, draft);
      return;
    case 'ByteLevel':
      draft.bytes = 'alphabet';
      return;
    case 'ByteFallback':
      draft.bytes = 'fallback';
      return;
    case 'Fuse':
      draft.fused = true;
      return;
    case 'Replace': {
      const pattern = patternOf(node.member('pattern'));
      const content = node.member('content').text();
      draft.steps.push((spelling) => spelling.replace(pattern, () => content));
      return;
    }
    case 'Strip':
      addStrip(node, draft);
      return;
    case 'Metaspace': {
      const mark = node.member('replacement').optionalText() ?? '\u2581';
      const kept =
        node.member('prepend_scheme').optionalText() === 'never' || !node.member('add_prefix_space').flag(true);
      draft.steps.push((spelling, first) => spelling.replaceAll(mark, first && !kept ? '' : ' '));
      return;
    }
    case 'WordPiece':
      draft.steps.push(wordPieceStep(node.member('prefix').optionalText() ?? '##', node.member('cleanup').flag(true)));
      return;
    case 'BPEDecoder': {
      const suffix = node.member('suffix').optionalText() ?? '</w>';
      draft.wordSuffix = suffix;
      draft.steps.push((spelling) => (spelling.endsWith(suffix) ? spelling.slice(0, -suffix.length) : spelling));
      return;
    }
    default:
      throw node.complain(`decoder ${type} is not supported`);
  }
}

function addStrip(node: JsonNode, draft: Draft): void {
  const character = node.member('content').text();
  const count = node.member('start').count(1 << 16);
  const stop = node.member('stop').count(1 << 16);
  if (draft.fused) {
    if (stop > 0) throw node.complain(`decoder Strip removes ${stop} from the end, which is not supported`);
    draft.stripStart = { character, count };
    return;
  }
  draft.steps.push((spelling) => {
    let start = 0;
    let end = spelling.length;
    while (start < count && spelling[start] === character) start++;
    while (spelling.length - end < stop && end > start && spelling[end - 1] === character) end--;
    return spelling.slice(start, end);
  });
}

/** Words begin after a space; tokens with the prefix continue one. */
export function wordPieceStep(prefix: string, cleanUp: boolean): SpellingStep {
  return (spelling, first) => {
    const continues = !first && spelling.startsWith(prefix);
    const spaced = continues ? spelling.slice(prefix.length) : first ? spelling : ` ${spelling}`;
    return cleanUp ? withoutTokenizationSpaces(spaced) : spaced;
  };
}

/** Takes back the spaces that splitting off punctuation and English contractions leaves (transformers' clean-up). */
export function withoutTokenizationSpaces(text: string): string {
  return text
    .replace(/ ([.?!,])/g, '$1')
    .replaceAll(" ' ", "'")
    .replace(/ (n't|'m|'s|'ve|'re)/g, '$1');
}
