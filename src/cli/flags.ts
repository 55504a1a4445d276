import { Option } from 'commander';
import { DEFAULT_KV_DTYPE, kvDtypes } from '../backend/kv-dtype.js';
import { EngineError } from '../base/errors.js';
import type { CompletionRequest } from '../serving/completer.js';

/** Reads a number; commander names the flag only in its own errors, so every flag brings its name. */
function numberFor(flag: string) {
  return (value: string): number => {
    const number = value.trim() === '' ? Number.NaN : Number(value);
    if (Number.isNaN(number)) throw new EngineError('OPTION_INVALID', { option: flag, value, expected: 'a number' });
    return number;
  };
}

/** A flag with a numeric value, e.g. `number('-n, --max-tokens <n>', '…')`. */
export function number(flags: string, description: string): Option {
  return new Option(flags, description).argParser(numberFor(/--[a-z-]+/.exec(flags)![0]));
}

/** A flag with one of a few values. */
export function choice(flags: string, description: string, choices: readonly string[]): Option {
  const flag = /--[a-z-]+/.exec(flags)![0];
  return new Option(flags, `${description} (${choices.join(', ')})`).argParser((value: string) => {
    if (choices.includes(value)) return value;
    throw new EngineError('OPTION_INVALID', { option: flag, value, expected: `one of ${choices.join(', ')}` });
  });
}

/** A flag that may be given several times. */
export function repeatable(flags: string, description: string): Option {
  return new Option(flags, description).argParser((value: string, before: string[] | undefined) => [
    ...(before ?? []),
    value,
  ]);
}

export const modelFlag = () =>
  new Option(
    '-m, --model <path>',
    'GGUF or safetensors file, or a folder with config.json (default: the embedded model)',
  );

export const quantizeFlag = () =>
  choice('--quantize <type>', 'quantise the matrices while loading; default none', ['none', 'int8', 'int4']);

export const maxStepsFlag = () =>
  number('--max-steps-per-call <n>', 'tokens of an answer that a GPU computes in one go while nobody waits; default 8');

export const promptCacheFlag = () =>
  new Option('--prompt-cache <folder>', 'keep beginnings of prompts on disk, so that the next start is warm');

/** Flags of every command that loads a model to run it. */
export function loadFlags(): Option[] {
  return [
    modelFlag(),
    choice('--backend <name>', 'what runs the model; default auto', ['auto', 'native-cuda', 'native-cpu', 'reference']),
    number('--threads <n>', 'CPU threads; default: as many as this process may use'),
    number('--context-size <tokens>', "tokens of prompt and answer together; default: the model's, at most 4096"),
    choice('--kv-dtype <type>', `storage of keys and values; default ${DEFAULT_KV_DTYPE}`, kvDtypes),
    choice('--activations <type>', 'inputs of quantised matrices; default auto: q8 on native-cpu, f32 on reference', [
      'auto',
      'f32',
      'q8',
    ]),
    quantizeFlag(),
  ];
}

/** Values of the flags that decide how an answer is generated. */
export interface SamplingFlags
  extends Pick<
    CompletionRequest,
    | 'maxTokens'
    | 'temperature'
    | 'topK'
    | 'topP'
    | 'minP'
    | 'typicalP'
    | 'presencePenalty'
    | 'frequencyPenalty'
    | 'logitBias'
    | 'seed'
    | 'ignoreEos'
  > {
  readonly repeatPenalty?: number;
  readonly stop?: readonly string[];
}

/** Flags of every command that generates text. */
export function samplingFlags(): Option[] {
  return [
    number('-n, --max-tokens <n>', 'most tokens to generate; default (or -1): until the context is full'),
    number('--temperature <t>', '0 is greedy; default 0.8'),
    number('--top-k <k>', 'keep the k most likely tokens; 0 is off; default 40'),
    number('--top-p <p>', 'keep the likeliest tokens that hold this probability; 1 is off; default 0.95'),
    number('--min-p <p>', 'keep tokens this fraction as likely as the likeliest; 0 is off; default 0.05'),
    number('--typical-p <p>', 'keep the most typical tokens that hold this probability; 1 is off; default 1'),
    number('--repeat-penalty <x>', 'divides the logits of tokens seen before; 1 is off; default 1'),
    number('--presence-penalty <x>', 'subtracted once from logits of generated tokens; default 0'),
    number('--frequency-penalty <x>', 'subtracted per use from logits of generated tokens; default 0'),
    new Option('--logit-bias <id:bias>', 'added to the logit of a token id; repeatable; -inf bans').argParser(
      parseBias,
    ),
    number('--seed <n>', 'same seed, same tokens; default (or -1): random'),
    repeatable('--stop <text>', 'end the answer before this text; repeatable'),
    new Option('--ignore-eos', 'go on after the end-of-text token'),
  ];
}

/** The options of a request that these flags stand for. */
export function samplingRequest(flags: SamplingFlags): CompletionRequest {
  return {
    maxTokens: flags.maxTokens === -1 ? undefined : flags.maxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    typicalP: flags.typicalP,
    repetitionPenalty: flags.repeatPenalty,
    presencePenalty: flags.presencePenalty,
    frequencyPenalty: flags.frequencyPenalty,
    logitBias: flags.logitBias,
    seed: flags.seed === -1 ? undefined : flags.seed,
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
  };
}

function parseBias(value: string, before: Record<number, number> | undefined): Record<number, number> {
  const [, id, bias] = /^(\d+):(-inf|-?[\d.]+)$/i.exec(value) ?? [];
  const number = bias?.toLowerCase() === '-inf' ? Number.NEGATIVE_INFINITY : Number(bias); // NaN if nothing matched
  if (id !== undefined && !Number.isNaN(number)) return { ...before, [id]: number };
  throw new EngineError('OPTION_INVALID', {
    option: '--logit-bias',
    value,
    expected: 'id:bias, such as 42:-5 or 42:-inf',
  });
}

export interface ChatFlags {
  readonly system?: string;
  readonly chatTemplate?: string;
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>>;
}

/** Flags of every command that applies a chat template. */
export function chatFlags(): Option[] {
  return [
    new Option('--system <text>', 'what the model is told before the conversation'),
    new Option('--chat-template <path>', "Jinja file to use in place of the model's own chat template"),
    new Option('--chat-template-kwargs <json>', 'more variables of the chat template, as a JSON object').argParser(
      parseObject,
    ),
  ];
}

function parseObject(value: string): Record<string, unknown> {
  try {
    const object: unknown = JSON.parse(value);
    if (typeof object === 'object' && object !== null && !Array.isArray(object)) return { ...object };
  } catch {
    // reported below
  }
  throw new EngineError('OPTION_INVALID', { option: '--chat-template-kwargs', value, expected: 'a JSON object' });
}
