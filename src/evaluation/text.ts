import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import type { Engine } from '../library/engine.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';

/** What evaluation needs of an engine. */
export type EvaluatedModel = Pick<Engine, 'model' | 'contextSize' | 'tokenizer' | 'logits'>;

/** Tokens; four million are a day of a large model, and their divergences fit into one saved file. */
export const MAX_TOKENS = 1 << 22;

/** A text as the model reads it. */
export interface EvaluationText {
  /** Token ids of the text alone, [numTokens]. */
  readonly ids: Int32Array;
  /** The model's beginning-of-text token, where its tokenizer writes one; null elsewhere and for token ids. */
  readonly bosId: number | null;
  /** Bytes of UTF-8 that the tokens from this one on stand for, or null without a tokenizer. */
  bytesFrom(first: number): number | null;
}

/**
 * Token ids of a text, or token ids as they are, cut to `maxTokens`. Throws TOKENIZER_MISSING, TOKEN_ID_INVALID,
 * OPTION_INVALID.
 */
export function evaluationText(
  engine: EvaluatedModel,
  input: string | ArrayLike<number>,
  maxTokens: number | undefined,
): EvaluationText {
  const { model } = engine;
  const tokenizer = tokenizerOrNull(engine);
  const isText = typeof input === 'string';
  if (isText && tokenizer === null) throw new EngineError('TOKENIZER_MISSING', { path: model.path });
  const all = isText ? tokenizer!.encode(input, { addSpecialTokens: false }) : input;
  const limit = maxTokens === undefined ? all.length : wholeNumber('maxTokens', maxTokens, 1, MAX_TOKENS);
  const numTokens = Math.min(all.length, limit);
  if (numTokens > MAX_TOKENS) {
    const expected = `at most ${MAX_TOKENS}, as the text has ${numTokens} tokens`;
    throw new EngineError('OPTION_INVALID', { option: 'maxTokens', value: maxTokens, expected });
  }
  const ids = checkedIds(all, numTokens, model.vocabSize);
  // A text as a whole has its own bytes; tokens may stand for others, such as a space before the first word.
  const whole = isText && numTokens === all.length ? Buffer.byteLength(input) : null;
  const bytesOf = (from: number, to: number) => {
    let bytes = 0;
    for (const id of ids.subarray(from, to)) bytes += tokenizer!.isSpecial(id) ? 0 : tokenBytes(tokenizer!, id);
    return bytes;
  };
  return {
    ids,
    bosId: isText ? bosOf(tokenizer!) : null,
    bytesFrom: (first) => {
      if (tokenizer === null) return null;
      return whole === null ? bytesOf(first, ids.length) : whole - bytesOf(0, first);
    },
  };
}

/** The engine's tokenizer, or null if the model came without one. */
function tokenizerOrNull(engine: EvaluatedModel): Tokenizer | null {
  try {
    return engine.tokenizer;
  } catch (error) {
    if (error instanceof EngineError && error.code === 'TOKENIZER_MISSING') return null;
    throw error;
  }
}

/** Throws VOCABULARY_MISMATCH unless both models mean the same by every token id. */
export function requireSameVocabulary(engine: EvaluatedModel, reference: EvaluatedModel): void {
  const mismatch = (problem: string) =>
    new EngineError('VOCABULARY_MISMATCH', { model: engine.model.name, reference: reference.model.name, problem });
  const sizes = [engine.model.vocabSize, reference.model.vocabSize];
  if (sizes[0] !== sizes[1]) throw mismatch(`they have ${sizes[0]} and ${sizes[1]} tokens`);
  const [own, other] = [tokenizerOrNull(engine), tokenizerOrNull(reference)];
  if (own === null || other === null) return; // the ids are all there is
  // Beyond the shorter one lie tokens that only pad a vocabulary.
  const common = Math.min(own.vocabSize, other.vocabSize);
  for (let id = 0; id < common; id++) {
    const [a, b] = [own.tokenText(id), other.tokenText(id)];
    if (a !== b) throw mismatch(`token ${id} is ${JSON.stringify(a)} and ${JSON.stringify(b)}`);
  }
  if (bosOf(own) !== bosOf(other)) {
    throw mismatch(`their texts begin with token ${bosOf(own) ?? 'none'} and ${bosOf(other) ?? 'none'}`);
  }
}

/** A tokenizer may know a beginning-of-text token and still not write it. */
function bosOf(tokenizer: Tokenizer): number | null {
  const { bosId } = tokenizer;
  return bosId !== null && tokenizer.encode('')[0] === bosId ? bosId : null;
}

/** Models pad their vocabularies with ids that no tokenizer knows. */
function tokenBytes(tokenizer: Tokenizer, id: number): number {
  return id < tokenizer.vocabSize ? tokenizer.tokenBytes(id).length : 0;
}

function checkedIds(ids: ArrayLike<number>, numTokens: number, vocabSize: number): Int32Array {
  for (let index = 0; index < numTokens; index++) {
    const id = ids[index]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new EngineError('TOKEN_ID_INVALID', { id, index, vocabSize });
    }
  }
  return Int32Array.from({ length: numTokens }, (_, index) => ids[index]!);
}
