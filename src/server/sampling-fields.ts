import { type Static, Type } from 'typebox';
import type { CompletionRequest } from '../serving/completer.js';
import type { ServerLimits } from './limits.js';
import { either, flag, integer, list, number, object, text } from './schema.js';

const optional = Type.Optional;
const MAX_SEED = Number.MAX_SAFE_INTEGER;
/** UTF-16 code units. */
const MAX_STOP_LENGTH = 1024;

/**
 * What chat completions and completions have in common: OpenAI's fields, and those that users of vLLM and llama.cpp
 * expect beside them, by the names they have there.
 */
export function samplingFields(limits: ServerLimits) {
  const stop = text(MAX_STOP_LENGTH);
  return {
    model: optional(text(256)),
    stream: optional(flag()),
    stream_options: optional(
      object('an object', { include_usage: optional(either('true or false', flag(), Type.Null())) }),
    ),
    n: optional(integer(1, limits.choices)),
    max_tokens: optional(integer(1, limits.maxTokens)),
    stop: optional(
      either(
        `a string, or a list of at most ${limits.stopStrings}`,
        stop,
        list(stop, 0, limits.stopStrings, 'strings'),
      ),
    ),
    seed: optional(integer(-MAX_SEED, MAX_SEED)),
    temperature: optional(number(0, 2)),
    top_p: optional(number(0, 1)),
    frequency_penalty: optional(number(-2, 2)),
    presence_penalty: optional(number(-2, 2)),
    logit_bias: optional(
      Type.Record(Type.String(), number(-100, 100), { expected: 'an object: token id → a number from -100 to 100' }),
    ),
    user: optional(text(4096)),
    // vLLM's and llama.cpp's
    top_k: optional(integer(-1, 2 ** 31 - 1)),
    min_p: optional(number(0, 1)),
    typical_p: optional(number(0, 1)),
    repetition_penalty: optional(number(0.01, 100)),
    repeat_penalty: optional(number(0.01, 100)),
    ignore_eos: optional(flag()),
    cache_salt: optional(text(256)),
    priority: optional(integer(-100, 100)),
    return_token_ids: optional(flag()),
  };
}

type SamplingBody = Static<ReturnType<typeof samplingSchema>>;
const samplingSchema = (limits: ServerLimits) => Type.Object(samplingFields(limits));

/** A nucleus of no probability keeps the most likely token alone; so does this, which float32 can hold. */
const SMALLEST_TOP_P = 1e-6;

/** The part of a request that says how tokens are chosen; defaults are OpenAI's, which filter nothing. */
export function samplingOf(body: SamplingBody): CompletionRequest {
  return {
    temperature: body.temperature ?? 1,
    topP: Math.max(body.top_p ?? 1, SMALLEST_TOP_P),
    topK: Math.max(body.top_k ?? 0, 0),
    minP: body.min_p ?? 0,
    typicalP: Math.max(body.typical_p ?? 1, SMALLEST_TOP_P),
    repetitionPenalty: body.repetition_penalty ?? body.repeat_penalty ?? 1,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    logitBias: body.logit_bias,
    // OpenAI takes negative seeds; the engine's begin at 0.
    seed: body.seed === undefined || body.seed >= 0 ? body.seed : MAX_SEED + 1 + body.seed,
    stop: [body.stop ?? []].flat().filter((stop) => stop !== ''),
    ignoreEos: body.ignore_eos ?? false,
    n: body.n ?? 1,
    cacheSalt: body.cache_salt,
    priority: body.priority,
  };
}

/** For metrics, traces and logs: numbers only. */
export function parametersOf(body: SamplingBody & { max_completion_tokens?: number | undefined }) {
  return {
    temperature: body.temperature,
    top_p: body.top_p,
    top_k: body.top_k,
    frequency_penalty: body.frequency_penalty,
    presence_penalty: body.presence_penalty,
    max_tokens: body.max_completion_tokens ?? body.max_tokens,
    n: body.n,
    seed: body.seed,
  };
}
