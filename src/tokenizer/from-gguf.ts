import { type AddedToken, AddedTokens } from './added-tokens.js';
import { endTokenIds } from './end-tokens.js';
import { type GgufKind, ggufKinds } from './gguf-kinds.js';
import { GgufVocabulary, tokenType } from './gguf-vocabulary.js';
import type { Frame } from './post-processor.js';
import { TokenTexts } from './token-text.js';
import { Tokenizer } from './tokenizer.js';

/** Ids that llama.cpp takes where a file names none. */
const usualIds: Readonly<Record<string, { bos?: number; eos?: number }>> = {
  llama: { bos: 1, eos: 2 },
  bert: { bos: 101 },
  t5: { eos: 1 },
};

/**
 * A tokenizer from the metadata of a GGUF file, key to value; lists may be typed arrays. Ids are those of llama.cpp.
 *
 * Throws TOKENIZER_MISSING if the file has no vocabulary (`tokenizer.ggml.model` absent, "none" or "no_vocab"), else
 * TOKENIZER_INVALID naming the path and the fault.
 */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, unknown>, path: string): Tokenizer {
  const file = new GgufVocabulary(metadata, path);
  const { model, vocabulary, types } = file;
  const buildKind = Object.hasOwn(ggufKinds, model) ? ggufKinds[model] : undefined;
  if (buildKind === undefined) {
    const supported = Object.keys(ggufKinds).join(', ');
    throw file.complain(`tokenizer.ggml.model ${JSON.stringify(model)} is not supported; supported: ${supported}`);
  }

  const bosId = file.idOr('bos_token_id', usualIds[model]?.bos ?? null);
  const eosId = file.idOr('eos_token_id', usualIds[model]?.eos ?? null);
  const declared = [eosId, file.id('eot_token_id'), file.id('eom_token_id')].filter((id) => id !== null);
  // Old converters marked some control tokens as ordinary ones; in a vocabulary over bytes "</s>" may really be text.
  const isText = (id: number) => model === 'gpt2' && types[id] === tokenType.normal && vocabulary.text(id) === '</s>';
  const eosIds = endTokenIds(vocabulary, declared, isText);

  const specialIds = new Set(eosIds);
  const added: AddedToken[] = [];
  for (let id = 0; id < vocabulary.size; id++) {
    if (types[id] === tokenType.control || types[id] === tokenType.unknown) specialIds.add(id);
    const special = specialIds.has(id);
    if (special || types[id] === tokenType.userDefined) {
      added.push(addedToken(id, vocabulary.text(id)!, special, file.modelName));
    }
  }
  const kind = buildKind(file, specialIds);
  const rawIds = new Set(added.map(({ id }) => id));
  // Padding of the embedding table has no text.
  for (let id = 0; id < vocabulary.size; id++) if (types[id] === tokenType.unused) specialIds.add(id);
  const frame = frameOf(file, kind, bosId, eosId);
  return new Tokenizer({
    vocabulary,
    added: new AddedTokens(added, kind.normalize),
    preTokenize: kind.preTokenize,
    model: kind.model,
    frame,
    chatPrefixIds: frame.prefixIds,
    texts: new TokenTexts(vocabulary, kind.decoding, (id) => rawIds.has(id)),
    specialIds,
    bosId,
    eosIds,
  });
}

function addedToken(id: number, text: string, special: boolean, modelName: string): AddedToken {
  // Phi-3 was trained with templates whose line breaks after control tokens vanish; GGUF has no key for it.
  const stripRight = special && /phi-?3/.test(modelName) && !['<unk>', '<s>', '<|endoftext|>'].includes(text);
  return { id, text, special, normalized: false, singleWord: false, stripLeft: false, stripRight };
}

function frameOf(file: GgufVocabulary, kind: GgufKind, bosId: number | null, eosId: number | null): Frame {
  const { model } = file;
  // BERT's frame is fixed, and ends with the separator; the key is misspelled in the specification.
  const fixed = model === 'bert';
  const lastId = fixed ? (file.id('seperator_token_id') ?? file.idOr('separator_token_id', 102)) : eosId;
  // Files of Gemma 4 were published with the flag wrong.
  const addsBos = fixed || model === 'gemma4' || (file.flag('add_bos_token') ?? kind.addsBos);
  const addsEos = fixed || (file.flag('add_eos_token') ?? kind.addsEos);
  if (addsBos && bosId === null) throw file.complain('texts begin with a token that tokenizer.ggml.bos_token_id lacks');
  if (addsEos && lastId === null) throw file.complain('texts end with a token that tokenizer.ggml.eos_token_id lacks');
  return { prefixIds: addsBos ? [bosId!] : [], suffixIds: addsEos ? [lastId!] : [] };
}
