import type { SessionLimits } from '../backend/backend.js';
import { DEFAULT_KV_DTYPE, type KvDType, kvDtypes } from '../backend/kv-dtype.js';
import type { Activations } from '../backend/op.js';
import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import type { LoopOptions } from '../engine/engine-loop.js';
import type { ModelConfig } from '../model/config.js';
import { type QuantisedTypes, quantisedTypes } from '../model/quantised-types.js';

export type BackendName = 'native-cuda' | 'native-cpu' | 'reference';
export type QuantizeOption = 'none' | 'int8' | 'int4';

/** How to load a model. */
export interface LoadOptions {
  /** A .gguf file, a .safetensors file, or a folder with config.json. Default: the embedded model. */
  readonly model?: string | undefined;
  /** `auto` takes the GPU where there is one, else the native addon, else the TypeScript reference. Default `auto`. */
  readonly backend?: 'auto' | BackendName | undefined;
  /** CPU threads of the native backend. Default: as many as this process may use. */
  readonly threads?: number | undefined;
  /** Tokens of prompt and answer together. Default: what the model was trained for, at most 4,096. */
  readonly contextSize?: number | undefined;
  /** Requests of full length whose keys and values fit at once; shorter ones share the space. Default 1, at most 256. */
  readonly batchSize?: number | undefined;
  /** Answers computed at once; further requests wait. 1 to 256. Default 16, or batchSize if that is more. */
  readonly maxSequences?: number | undefined;
  /** Requests that may wait; one more is refused with QUEUE_FULL. Default 4,096. */
  readonly maxWaiting?: number | undefined;
  /**
   * Tokens of an answer that a GPU computes in one go while no other request waits; one that comes then waits for their
   * end. 1 to 8. Default 8. Without effect on other backends.
   */
  readonly maxStepsPerCall?: number | undefined;
  /** Keep keys and values of prompts, for those that begin alike, until their space is needed. Default true. */
  readonly prefixCache?: boolean | undefined;
  /**
   * Folder where beginnings that prompts share are kept, so that they need not be computed again after a restart. Made if
   * there is none. It then holds what was asked, readable by its owner only. Default: nothing is kept.
   */
  readonly promptCache?: string | undefined;
  /** Most bytes of that folder; what was used least recently goes first. Default 2 GiB. */
  readonly promptCacheBytes?: number | undefined;
  /** Storage type of keys and values. Default `f16`. */
  readonly kvDtype?: KvDType | undefined;
  /** How matrices in a quantised type treat their input. Default `auto`: `q8` on native-cpu, `f32` on reference, 11 bits on native-cuda. */
  readonly activations?: 'auto' | Activations | undefined;
  /**
   * Quantises the matrices while they are loaded, exactly as `engine quantize` would: `int8` or `int4` for the layers,
   * int8 for embeddings and head. Default `none`.
   */
  readonly quantize?: QuantizeOption | undefined;
  /** A Jinja file with a chat template to use in place of the model's own. */
  readonly chatTemplate?: string | undefined;
  /** Gives up loading with ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/** Tokens; the model may allow far more, but memory for all of it is taken at load. */
const DEFAULT_CONTEXT_SIZE = 4096;
/** Tokens per KV block. */
const BLOCK_SIZE = 16;
/** Tokens of one step: enough for full speed in prefill, few enough that an abort is noticed soon. */
const MAX_STEP_TOKENS = 512;
/** Rows of one step whose logits or hidden states are wanted, at least. */
const MIN_STEP_ROWS = 64;
/** Rows beyond those of sequences that generate, for prompts of which every row is wanted. */
const SPARE_ROWS = 16;
/** Sequences of one step, unless told otherwise. */
const DEFAULT_SEQUENCES = 16;
const MAX_BATCH_SIZE = 256;
const MAX_WAITING = 1_000_000;
const MAX_STEPS_PER_CALL = 8;

/** Everything a session allocates, from the options and the model's own limits. Throws OPTION_INVALID. */
export function sessionLimits(
  options: Pick<LoadOptions, 'contextSize' | 'batchSize' | 'maxSequences' | 'kvDtype'>,
  model: { readonly contextLength: number },
): SessionLimits {
  const contextSize = options.contextSize ?? Math.min(model.contextLength, DEFAULT_CONTEXT_SIZE);
  if (!Number.isInteger(contextSize) || contextSize < 2 || contextSize > model.contextLength) {
    const expected = `a whole number from 2 to ${model.contextLength}, the context the model was made for`;
    throw new EngineError('OPTION_INVALID', { option: 'contextSize', value: contextSize, expected });
  }
  const batchSize = wholeNumber('batchSize', options.batchSize ?? 1, 1, MAX_BATCH_SIZE);
  const most = options.maxSequences ?? Math.max(DEFAULT_SEQUENCES, batchSize);
  const maxSequences = wholeNumber('maxSequences', most, 1, MAX_BATCH_SIZE);
  const maxTokens = Math.min(MAX_STEP_TOKENS, contextSize * maxSequences);
  const maxRows = Math.min(Math.max(MIN_STEP_ROWS, maxSequences + SPARE_ROWS), maxTokens);
  return {
    maxTokens,
    maxRows,
    maxSequences,
    contextSize,
    blockSize: BLOCK_SIZE,
    numBlocks: Math.ceil(contextSize / BLOCK_SIZE) * batchSize,
    kvDtype: oneOf('kvDtype', options.kvDtype ?? DEFAULT_KV_DTYPE, kvDtypes),
  };
}

/** What the engine loop needs to know, from the options and the model. Throws OPTION_INVALID. */
export function loopOptions(
  options: Pick<LoadOptions, 'maxWaiting' | 'maxStepsPerCall' | 'prefixCache'>,
  { vocabSize, hiddenSize, slidingWindows }: ModelConfig,
): LoopOptions {
  const { prefixCache, maxWaiting, maxStepsPerCall } = options;
  const within = (option: string, value: number | undefined, most: number) =>
    value === undefined ? undefined : wholeNumber(option, value, 1, most);
  return {
    vocabSize,
    hiddenSize,
    // 0 is a layer without a window.
    window: slidingWindows.every((size) => size > 0) ? Math.max(...slidingWindows) : null,
    maxWaiting: within('maxWaiting', maxWaiting, MAX_WAITING),
    maxStepsPerCall: within('maxStepsPerCall', maxStepsPerCall, MAX_STEPS_PER_CALL),
    prefixCache,
  };
}

/** What matrices become while they are loaded; undefined: what they are stored as. Throws OPTION_INVALID. */
export function typesAtLoad({ quantize = 'none' }: Pick<LoadOptions, 'quantize'>): QuantisedTypes | undefined {
  const type = oneOf('quantize', quantize, ['none', 'int8', 'int4']);
  return type === 'none' ? undefined : quantisedTypes[type];
}

/** Throws OPTION_INVALID unless the value is one of the choices. */
export function oneOf<T extends string>(option: string, value: T, choices: readonly T[]): T {
  if (choices.includes(value)) return value;
  throw new EngineError('OPTION_INVALID', { option, value, expected: `one of ${choices.join(', ')}` });
}
