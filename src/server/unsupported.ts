import { EngineError } from '../base/errors.js';

/** A field that the server knows and cannot honour, unless its value asks for nothing. */
interface Unsupported {
  readonly asksNothing: (value: unknown, body: Readonly<Record<string, unknown>>) => boolean;
  readonly remedy: string;
}

const leaveOut = 'leave it out';
const off = (value: unknown) => value === false;
const emptyList = (value: unknown) => Array.isArray(value) && value.length === 0;
const never = () => false;

/** Tools are never called; with tool_choice "none" nobody expects them to be. */
const toolsOff = (value: unknown, body: Readonly<Record<string, unknown>>) =>
  emptyList(value) || body.tool_choice === 'none';

const chatFields: Readonly<Record<string, Unsupported>> = {
  tools: { asksNothing: toolsOff, remedy: 'leave it out, or set tool_choice to "none"' },
  tool_choice: {
    asksNothing: (value) => value === 'none' || value === 'auto',
    remedy: 'leave it out, or set it to "none"',
  },
  functions: {
    asksNothing: (value, body) => emptyList(value) || body.function_call === 'none',
    remedy: 'leave it out, or set function_call to "none"',
  },
  function_call: { asksNothing: (value) => value === 'none' || value === 'auto', remedy: 'set it to "none"' },
  response_format: {
    asksNothing: (value) => (value as { type?: unknown } | null)?.type === 'text',
    remedy: 'leave it out, or set its type to "text"',
  },
  modalities: {
    asksNothing: (value) => Array.isArray(value) && value.every((modality) => modality === 'text'),
    remedy: 'set it to ["text"]',
  },
  audio: { asksNothing: never, remedy: leaveOut },
  store: { asksNothing: off, remedy: 'set it to false' },
  verbosity: { asksNothing: (value) => value === 'medium', remedy: leaveOut },
  web_search_options: { asksNothing: never, remedy: leaveOut },
  moderation: { asksNothing: never, remedy: leaveOut },
  // vLLM's and llama.cpp's constraints: to drop one silently would be worse than to refuse it
  grammar: { asksNothing: (value) => value === '', remedy: leaveOut },
  json_schema: { asksNothing: never, remedy: leaveOut },
  structured_outputs: { asksNothing: never, remedy: leaveOut },
  guided_json: { asksNothing: never, remedy: leaveOut },
  guided_regex: { asksNothing: never, remedy: leaveOut },
  guided_choice: { asksNothing: never, remedy: leaveOut },
  guided_grammar: { asksNothing: never, remedy: leaveOut },
};

const completionFields: Readonly<Record<string, Unsupported>> = {
  ...chatFields,
  suffix: { asksNothing: (value) => value === '', remedy: leaveOut },
  best_of: {
    asksNothing: (value, body) => value === (body.n ?? 1),
    remedy: 'set it to n: answers are not ranked here',
  },
  logprobs: {
    asksNothing: (_, body) => body.echo !== true,
    remedy: 'leave it out, or echo: log-probabilities are of generated tokens only',
  },
};

const tokenizeFields: Readonly<Record<string, Unsupported>> = {
  parse_special: { asksNothing: off, remedy: 'leave it out: special tokens written in a text are ordinary text here' },
  with_pieces: { asksNothing: off, remedy: leaveOut },
  return_token_strs: { asksNothing: off, remedy: leaveOut },
  add_generation_prompt: { asksNothing: (value) => value === true, remedy: 'leave it out, or set it to true' },
  continue_final_message: { asksNothing: off, remedy: 'set it to false' },
};

const tables = { chat: chatFields, completion: completionFields, tokenize: tokenizeFields };

/** Throws PARAMETER_UNSUPPORTED for the first field that asks for what the server cannot do. */
export function checkSupported(kind: keyof typeof tables, body: Readonly<Record<string, unknown>>): void {
  for (const [parameter, { asksNothing, remedy }] of Object.entries<Unsupported>(tables[kind])) {
    const value = Object.hasOwn(body, parameter) ? body[parameter] : undefined;
    if (value === undefined || asksNothing(value, body)) continue;
    throw new EngineError('PARAMETER_UNSUPPORTED', { parameter, value, remedy });
  }
}
