import { type Static, Type } from 'typebox';
import { EngineError } from '../base/errors.js';
import type { CompletionRequest } from '../serving/completer.js';
import type { ServerLimits } from './limits.js';
import { samplingFields, samplingOf } from './sampling-fields.js';
import { anyText, either, flag, integer, tokenId } from './schema.js';
import { checkSupported } from './unsupported.js';

const optional = Type.Optional;
/** max_tokens of a completion that names none, as OpenAI has it. Tokens. */
const DEFAULT_MAX_TOKENS = 16;

const tokens = Type.Array(tokenId(), { minItems: 1 });

/** One text or list of token ids, or several. */
export function inputSchema(most: number) {
  return either(
    `a string, a list of token ids, or a list of at most ${most} strings or lists of token ids`,
    anyText(),
    tokens,
    Type.Array(anyText(), { minItems: 1, maxItems: most }),
    Type.Array(tokens, { minItems: 1, maxItems: most }),
  );
}

export function completionSchema(limits: ServerLimits) {
  return Type.Object({
    ...samplingFields(limits),
    prompt: inputSchema(limits.prompts),
    echo: optional(flag()),
    logprobs: optional(integer(0, 20)),
    best_of: optional(integer(1, limits.choices)),
  });
}

export type CompletionBody = Static<ReturnType<typeof completionSchema>>;

/** The inputs of inputSchema as a list. */
export function inputsOf(input: Static<ReturnType<typeof inputSchema>>): readonly (string | readonly number[])[] {
  if (typeof input === 'string') return [input];
  return typeof input[0] === 'number' ? [input as number[]] : (input as (string | number[])[]);
}

/** One request for each prompt. Throws PARAMETER_UNSUPPORTED and OPTION_INVALID. */
export function completionRequests(body: CompletionBody, limits: ServerLimits): readonly CompletionRequest[] {
  checkSupported('completion', body);
  const prompts = inputsOf(body.prompt);
  const { n = 1 } = body;
  if (prompts.length * n > limits.choices) {
    const expected = `at most ${limits.choices} answers to all ${prompts.length} prompts together`;
    throw new EngineError('OPTION_INVALID', { option: 'n', value: n, expected });
  }
  const shared = {
    ...samplingOf(body),
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs: body.logprobs,
  };
  return prompts.map((prompt) => ({ ...shared, ...(typeof prompt === 'string' ? { prompt } : { tokenIds: prompt }) }));
}
