import type { JsonNode } from './json-node.js';
import type { Vocabulary } from './vocabulary.js';

/** Ids put around the text. */
export interface Frame {
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
}

const MAX_STEPS = 64;
const noFrame: Frame = { prefixIds: [], suffixIds: [] };

/** What the post-processor of tokenizer.json puts around a single text. Throws TOKENIZER_INVALID. */
export function frameFromJson(node: JsonNode, vocabulary: Vocabulary): Frame {
  if (node.isAbsent) return noFrame;
  const type = node.member('type').text();
  switch (type) {
    case 'Sequence': {
      const frames = node
        .member('processors')
        .items(MAX_STEPS)
        .map((processor) => frameFromJson(processor, vocabulary));
      return {
        prefixIds: frames.toReversed().flatMap(({ prefixIds }) => prefixIds),
        suffixIds: frames.flatMap(({ suffixIds }) => suffixIds),
      };
    }
    case 'ByteLevel':
      return noFrame; // it only moves offsets
    case 'BertProcessing':
    case 'RobertaProcessing':
      return {
        prefixIds: [idOfPair(node.member('cls'), vocabulary)],
        suffixIds: [idOfPair(node.member('sep'), vocabulary)],
      };
    case 'TemplateProcessing':
      return frameFromTemplate(node, vocabulary);
    default:
      throw node.complain(`post-processor ${type} is not supported`);
  }
}

/** ["[SEP]", 102] */
function idOfPair(node: JsonNode, vocabulary: Vocabulary): number {
  const [, id] = node.items(2);
  if (id === undefined) throw node.wrong('a token and its id');
  return id.count(vocabulary.size - 1);
}

function frameFromTemplate(node: JsonNode, vocabulary: Vocabulary): Frame {
  const prefixIds: number[] = [];
  const suffixIds: number[] = [];
  let ids = prefixIds;
  for (const item of node.member('single').items(MAX_STEPS)) {
    const special = item.member('SpecialToken');
    if (special.isAbsent) {
      if (ids === suffixIds) throw item.complain(`${item.where} repeats the text, which is not supported`);
      ids = suffixIds;
      continue;
    }
    const name = special.member('id').text();
    const declared = node.member('special_tokens').member(name).member('ids');
    for (const id of declared.items(MAX_STEPS)) ids.push(id.count(vocabulary.size - 1));
  }
  return { prefixIds, suffixIds };
}
