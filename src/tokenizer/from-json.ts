import { type AddedToken, AddedTokens } from './added-tokens.js';
import { decodingRulesFromJson } from './decoder.js';
import { endTokenIds } from './end-tokens.js';
import { JsonNode } from './json-node.js';
import { modelFromJson } from './model-from-json.js';
import { normalizerFromJson } from './normalizer.js';
import { type Frame, frameFromJson } from './post-processor.js';
import { preTokenizerFromJson } from './pre-tokenizer.js';
import { complainAbout } from './problem.js';
import { TokenTexts } from './token-text.js';
import { Tokenizer } from './tokenizer.js';
import { type Vocabulary, vocabularyLimits } from './vocabulary.js';

/**
 * A tokenizer from a parsed tokenizer.json (huggingface/tokenizers).
 *
 * Throws TOKENIZER_INVALID naming the path, the place and the fault.
 *
 * @param tokenizerJson    the parsed file
 * @param config           the parsed tokenizer_config.json, if there is one: names the first and last token
 * @param path             of tokenizer.json, for messages
 * @param generationConfig the parsed generation_config.json, if there is one: may name more last tokens
 */
export function tokenizerFromJson(
  tokenizerJson: unknown,
  config: unknown,
  path: string,
  generationConfig?: unknown,
): Tokenizer {
  const complain = complainAbout(path);
  const file = new JsonNode(tokenizerJson, '', complain);
  const settings = new JsonNode(config ?? {}, 'tokenizer_config', complain);

  const tokens = file.member('added_tokens');
  const added = tokens.isAbsent ? [] : tokens.items(vocabularyLimits.tokens).map(addedTokenFromJson);
  const special = new Set(added.filter((token) => token.special).map(({ text }) => text));
  const { model, vocabulary, preTokenize } = modelFromJson(file.member('model'), special);
  /** Added tokens that the model does not know are spelled as they read, not in the model's spelling. */
  const rawIds = new Set<number>();
  const placed = added.map((token) => {
    const id = vocabulary.id(token.text) ?? token.id;
    if (vocabulary.id(token.text) === null) {
      vocabulary.add(token.text, id, complain);
      rawIds.add(id);
    }
    return { ...token, id };
  });
  const addedIds = new Set(placed.map(({ id }) => id));
  const specialIds = new Set(placed.filter((token) => token.special).map(({ id }) => id));

  const normalize = normalizerFromJson(file.member('normalizer'));
  const cut = preTokenizerFromJson(file.member('pre_tokenizer'));
  const frame = adjustFrame(frameFromJson(file.member('post_processor'), vocabulary), settings, vocabulary);
  const eos = [namedToken(settings, 'eos_token', vocabulary), ...generationEndIds(generationConfig, vocabulary)];
  return new Tokenizer({
    vocabulary,
    added: new AddedTokens(placed, normalize),
    preTokenize: file.member('pre_tokenizer').isAbsent ? preTokenize : cut,
    model,
    frame,
    texts: new TokenTexts(vocabulary, decodingRulesFromJson(file.member('decoder')), (id) => rawIds.has(id)),
    specialIds,
    bosId: namedToken(settings, 'bos_token', vocabulary) ?? frame.prefixIds[0] ?? null,
    eosIds: endTokenIds(
      vocabulary,
      eos.filter((id) => id !== null),
      (id) => !addedIds.has(id),
    ),
  });
}

function addedTokenFromJson(node: JsonNode): AddedToken {
  const special = node.member('special').flag(false);
  return {
    id: node.member('id').count(vocabularyLimits.tokens - 1),
    text: node.member('content').text(),
    special,
    normalized: node.member('normalized').flag(!special),
    singleWord: node.member('single_word').flag(false),
    stripLeft: node.member('lstrip').flag(false),
    stripRight: node.member('rstrip').flag(false),
  };
}

/** The id of a token that tokenizer_config.json names as text or as an object; null if it names none of ours. */
function namedToken(settings: JsonNode, key: string, vocabulary: Vocabulary): number | null {
  const node = settings.member(key);
  if (node.isAbsent) return null;
  return vocabulary.id(typeof node.value === 'string' ? node.value : node.member('content').text());
}

/** `eos_token_id` of generation_config.json: a number or a list of them. Ids without a token are left out. */
function generationEndIds(generationConfig: unknown, vocabulary: Vocabulary): number[] {
  if (typeof generationConfig !== 'object' || generationConfig === null) return [];
  const ids: unknown = (generationConfig as Record<string, unknown>).eos_token_id;
  return [ids].flat().filter((id) => typeof id === 'number' && vocabulary.text(id) !== null) as number[];
}

/** add_bos_token and add_eos_token of tokenizer_config.json overrule the post-processor, as in transformers. */
function adjustFrame(frame: Frame, settings: JsonNode, vocabulary: Vocabulary): Frame {
  const adjust = (ids: readonly number[], wanted: JsonNode, name: string, end: 'first' | 'last') => {
    const id = namedToken(settings, name, vocabulary);
    if (wanted.isAbsent || id === null) return ids;
    const has = ids.at(end === 'first' ? 0 : -1) === id;
    if (wanted.flag(false) === has) return ids;
    if (has) return end === 'first' ? ids.slice(1) : ids.slice(0, -1);
    return end === 'first' ? [id, ...ids] : [...ids, id];
  };
  return {
    prefixIds: adjust(frame.prefixIds, settings.member('add_bos_token'), 'bos_token', 'first'),
    suffixIds: adjust(frame.suffixIds, settings.member('add_eos_token'), 'eos_token', 'last'),
  };
}
